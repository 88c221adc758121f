// The server's answers, which openapi.json describes.

export const about = await (await fetch("networks")).json();

const wait = (time) => new Promise((resolve) => setTimeout(resolve, 1000 * time));

// One request; where the server is busy it is asked again when it says.
export async function ask(network, file, parameters, { signal, busy } = {}) {
  for (let tries = 1; ; tries++) {
    const query = new URLSearchParams({ network, ...parameters });
    const response = await fetch(`predict?${query}`, { method: "POST", body: file, signal }).catch((error) => {
      throw signal?.aborted ? error : new Error("The server does not answer");
    });
    if (response.ok) return response;
    const { error } = await response.json();
    if (response.status !== 503 || tries === 5) throw new Error(error);
    busy?.(error);
    await wait(Number(response.headers.get("Retry-After")));
  }
}
