// One network's labels of the picture: painted over it, told in a table, and as files.

import { about, ask } from "./server.js";

const LARGEST = 4e6; // pixels that are painted; of larger pictures every n-th, and downloads have all
const HINT = "Point at the picture to read a pixel";
const BLACK = 0xff000000; // of backgrounds, which would only be darker under it
const MARK = [214, 0, 147]; // where two networks differ

// What all panels show.
export const state = { view: "overlay", strength: 0.6, task: "", only: null, file: null };

export const percent = (part, digits = 1) => `${(100 * part).toFixed(digits)} %`;
const seconds = (time) => (time < 1 ? `${(1000 * time).toFixed(0)} ms` : `${time.toFixed(1)} s`);
const word = (r, g, b) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0; // as in the memory of an ImageData
const blob = (base64) => new Blob([Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))], { type: "image/png" });

export class Panel {
  constructor(network) {
    this.network = network;
    this.root = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.root.querySelector(selector);
    this.find("h2").textContent = network.name;
    this.find(".readout").textContent = HINT;
    this.stage = this.find(".stage");
    this.context = this.find("canvas").getContext("2d");
    this.find(".cut").addEventListener("input", (event) => this.say("cut", event.target.value));
    this.stage.addEventListener("pointermove", (event) => this.read(event));
    this.stage.addEventListener("pointerleave", () => this.find(".readout").replaceChildren(HINT));
    this.find(".overlay").addEventListener("click", () => this.saveOverlay());
  }

  // To the page: events "cut", "choose" and "fail".
  say(event, detail) {
    this.root.dispatchEvent(new CustomEvent(event, { detail, bubbles: true }));
  }

  // The picture alone, as soon as it is there.
  async begin(source) {
    this.told = this.labels = null;
    this.context.clearRect(0, 0, this.context.canvas.width, this.context.canvas.height);
    this.root.classList.add("pending");
    if (source) await this.setPicture(source);
  }

  async setPicture(source) {
    const image = this.find("img");
    image.src = source;
    await image.decode();
    this.stage.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  }

  async show(told, took) {
    this.told = told;
    if (told.picture) await this.setPicture(`data:image/jpeg;base64,${told.picture}`);
    if (this.told !== told) return; // another picture was begun
    const step = Math.max(1, Math.sqrt((told.width * told.height) / LARGEST));
    this.width = Math.round(told.width / step);
    this.height = Math.round(told.height / step);
    this.stage.style.setProperty("--ratio", told.width / told.height);
    this.stage.classList.toggle("enlarged", told.width < this.stage.clientWidth / 2);
    Object.assign(this.context.canvas, { width: this.width, height: this.height });
    const parts = ["network", "wait", "decode", "encode"].map((part) => `${part} ${seconds(told.seconds[part])}`);
    this.find(".facts small").textContent =
      `${told.width} × ${told.height} pixels, ${told.precision}. ${seconds(took)} in all: ${parts.join(", ")}.`;
    await this.showTask();
  }

  async showTask() {
    const told = this.told;
    const task = told.tasks.find(({ name }) => name === state.task) ?? told.tasks[0];
    const [colored, sure] = await Promise.all([task.colors ?? task.labels, task.confidence_map].map((png) => this.words(png)));
    if (this.told !== told) return;
    this.task = task;
    this.root.classList.remove("pending");
    const classes = task.classes;
    this.colors = classes.map(({ color }) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
    const byColor = new Map(this.colors.map(([r, g, b], index) => [word(r, g, b), index]).reverse());
    this.labels = Uint16Array.from(colored, (color) => byColor.get(color) ?? 0);
    this.sure = Uint8Array.from(sure, (gray) => gray & 255);
    const found = classes.filter(({ pixels }) => pixels).sort((a, b) => b.pixels - a.pixels);
    this.find("canvas").ariaLabel = `Labels: ${found.map(({ name, share }) => `${name} ${percent(share)}`).join(", ")}`;
    this.find(".facts strong").textContent = `Mean confidence ${percent(task.confidence)}`;
    this.find("tbody").replaceChildren(...found.map((each) => this.row(each)));
    const absent = classes.filter(({ pixels }) => !pixels).map(({ name }) => name);
    this.find(".absent").textContent = absent.length ? `Not found: ${absent.join(", ")}` : "";
    this.link(".labels", "labels", blob(task.labels));
    this.link(".confidence", "confidence", blob(task.confidence_map));
  }

  row({ name, color, share, confidence }) {
    const row = document.createElement("tr");
    row.innerHTML = '<th scope="row"><button type="button"><i class="swatch"></i><bdi></bdi></button></th><td></td><td></td>';
    const button = row.querySelector("button");
    button.ariaPressed = String(state.only === name);
    button.dataset.name = row.querySelector("bdi").textContent = name;
    row.querySelector("i").style.background = color;
    row.cells[1].textContent = percent(share);
    row.cells[1].style.setProperty("--share", `${100 * share}%`);
    row.cells[2].textContent = percent(confidence, 0);
    button.addEventListener("click", () => this.say("choose", state.only === name ? null : name));
    return row;
  }

  // The pixels of a PNG at the size that is painted, as 32-bit words.
  async words(base64) {
    const bitmap = await createImageBitmap(blob(base64), { colorSpaceConversion: "none" });
    const context = new OffscreenCanvas(this.width, this.height).getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap, 0, 0, this.width, this.height);
    bitmap.close();
    return new Uint32Array(context.getImageData(0, 0, this.width, this.height).data.buffer);
  }

  paint(other) {
    if (!this.labels) return;
    const image = this.context.createImageData(this.width, this.height);
    const words = new Uint32Array(image.data.buffer);
    const { labels, sure } = this;
    const colors = Uint32Array.from(this.colors, ([r, g, b]) => word(r, g, b));
    const shown = Uint8Array.from(this.task.classes, ({ name }) => state.only === null || state.only === name);
    const views = {
      labels: (at) => colors[labels[at]],
      overlay: (at) => (colors[labels[at]] === BLACK ? 0 : colors[labels[at]]),
      confidence: (at) => word(sure[at], sure[at], sure[at]),
      differences: (at) => (other?.labels && labels[at] !== other.labels[at] ? word(...MARK) : 0),
    };
    const view = views[state.view];
    for (let at = 0; at < words.length; at++) if (shown[labels[at]]) words[at] = view(at);
    this.context.putImageData(image, 0, 0);
    this.find("canvas").style.opacity = { overlay: state.strength, differences: 0.85 }[state.view] ?? 1;
    for (const button of this.root.querySelectorAll("tbody button"))
      button.ariaPressed = String(button.dataset.name === state.only);
  }

  read(event) {
    if (!this.labels) return;
    const box = this.stage.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (Math.min(x, y) < 0 || Math.max(x, y) >= 1) return;
    const at = Math.floor(y * this.height) * this.width + Math.floor(x * this.width);
    const { name, color } = this.task.classes[this.labels[at]];
    const swatch = document.createElement("i");
    swatch.style.background = color;
    const position = `${Math.floor(x * this.told.width)}, ${Math.floor(y * this.told.height)}`;
    this.find(".readout").replaceChildren(swatch, `${name}, ${percent(this.sure[at] / 255, 0)} sure, at ${position}`);
  }

  link(selector, kind, content) {
    const anchor = this.find(selector);
    URL.revokeObjectURL(anchor.href);
    Object.assign(anchor, { href: URL.createObjectURL(content), download: this.fileName(kind) });
  }

  fileName(kind) {
    const parts = [state.file.name.replace(/\.[^.]*$/, "") || "picture", this.task.name, kind];
    return `${about.networks.length > 1 ? [...parts, this.network.name] : parts}.png`.replace(/,+/g, "_").replaceAll("/", "-");
  }

  async saveOverlay() {
    const button = this.find(".overlay");
    button.disabled = true;
    try {
      const response = await ask(this.network.name, state.file, { output: "overlay", task: this.task.name });
      const anchor = document.createElement("a");
      Object.assign(anchor, { href: URL.createObjectURL(await response.blob()), download: this.fileName("overlay") });
      anchor.click();
      setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
    } catch (error) {
      this.say("fail", error);
    } finally {
      button.disabled = false;
    }
  }
}
