// From a file that was chosen, dropped or pasted to what each network makes of it.

import { Panel, percent, state } from "./panel.js";
import { about, ask } from "./server.js";

const element = (id) => document.getElementById(id);
let source = null; // an address of the picture that is shown
let running = null; // ends the requests that are under way

// An address that shows the file, or null where this browser cannot, as with TIFF.
async function displayable(file) {
  try {
    (await createImageBitmap(file)).close();
    return URL.createObjectURL(file);
  } catch {
    return null;
  }
}

async function open(file) {
  running?.abort();
  const { signal } = (running = new AbortController());
  const started = performance.now();
  element("error").hidden = true;
  try {
    if (file.size > about.limits.upload_bytes)
      throw new Error(`${file.name}: ${(file.size / 1e6).toFixed(1)} MB; at most ${about.limits.upload_bytes / 1e6} are taken`);
    tell(`Labeling ${file.name}`, true);
    const address = await displayable(file);
    if (signal.aborted) return;
    URL.revokeObjectURL(source);
    source = address;
    Object.assign(state, { file, only: null });
    element("result").hidden = source === null;
    element("drop").classList.add("done");
    await Promise.all(panels.map((panel) => panel.begin(source)));
    await Promise.all(
      panels.map(async (panel) => {
        const parameters = { output: "json", picture: source === null };
        const response = await ask(panel.network.name, file, parameters, { signal, busy });
        const told = await response.json();
        element("result").hidden = false;
        await panel.show(told, (performance.now() - started) / 1000);
        paint();
      }),
    );
    tell(`${file.name} is labeled`);
  } catch (error) {
    if (signal.aborted) return;
    element("result").hidden = true;
    fail(new Error(error.message.replace(/^upload(?=:)/, file.name)));
  }
}

const busy = (why) => tell(`The server is busy: ${why}`, true);

function tell(text, busy = false) {
  element("status").textContent = text;
  element("status").classList.toggle("busy", busy);
}

function fail(error) {
  tell("");
  element("error").textContent = error.message;
  element("error").hidden = false;
}

function paint() {
  panels.forEach((panel, index) => panel.paint(panels[1 - index]));
  element("strength").hidden = state.view !== "overlay";
  element("scale").hidden = state.view !== "confidence";
  element("agreement").textContent = agreement();
}

function agreement() {
  const [a, b] = panels.map(({ labels }) => labels);
  if (!comparable || !a || !b) return "";
  return `The two agree on ${percent(a.reduce((sum, label, at) => sum + (label === b[at]), 0) / a.length)} of the pixels`;
}

function moveCut(value) {
  for (const { find, stage } of panels) {
    find(".cut").value = value;
    stage.style.setProperty("--at", `${value}%`);
  }
}

const panels = about.networks.map((network) => new Panel(network));
const tasks = about.networks[0].tasks;
const namesOf = (network) => JSON.stringify(network.tasks.map(({ classes }) => classes.map(({ name }) => name)));
const comparable = panels.length === 2 && namesOf(about.networks[0]) === namesOf(about.networks[1]);

element("panels").append(...panels.map(({ root }) => root));
element("panels").className = panels.length > 1 ? "two" : "one";
element("networks").textContent = about.networks
  .map(({ name, tasks }) => `${name}: ${tasks.flatMap(({ classes }) => classes).length} classes`)
  .join(" · ");
element("limits").textContent = `at most ${about.limits.upload_bytes / 1e6} MB and ${about.limits.megapixels} megapixels`;
element("where").textContent = `Pictures go to ${location.host}, and are not kept.`;
element("commands").textContent = ["' > labels.png", "?output=json' > labels.json"]
  .map((rest) => `curl --data-binary @PHOTO.jpg '${location.origin}/predict${rest}`)
  .join("\n");
element("differences").hidden = !comparable;
element("task").hidden = tasks.length === 1;
element("task").querySelector("select").append(...tasks.map(({ name }) => new Option(name)));
state.task = tasks[0].name;
moveCut(50);

element("panels").addEventListener("cut", ({ detail }) => moveCut(detail));
element("panels").addEventListener("choose", ({ detail }) => {
  state.only = detail;
  paint();
});
element("panels").addEventListener("fail", ({ detail }) => fail(detail));
element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) open(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
element("views").addEventListener("change", ({ target }) => {
  state.view = target.value;
  paint();
});
element("strength").addEventListener("input", ({ target }) => {
  state.strength = target.value / 100;
  paint();
});
element("task").addEventListener("change", async ({ target }) => {
  Object.assign(state, { task: target.value, only: null });
  await Promise.all(panels.filter(({ told }) => told).map((panel) => panel.showTask()));
  paint();
});
addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files.length) open(clipboardData.files[0]);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  else fail(new Error("What was dropped is no file; save the picture first, or copy and paste it"));
});
