/** The backend of the page that `pivq_jax.explore.server` serves. */

import { BackendError } from "./backend.js";

/** @implements {import("./backend.js").Backend} */
export class ServerBackend {
  #model; // see backend.js

  async model() {
    this.#model = await this.#ask("model");
    return this.#model;
  }

  async progress() {
    return this.#ask("progress");
  }

  async examples(start, count) {
    const images = await this.#ask("examples", { start, count });
    return images.map((image) => this.#image(image));
  }

  async example(index) {
    return this.#picture(await this.#ask("example", { index }));
  }

  async encode(file, name) {
    this.#checkSize(file);
    return { ...this.#picture(await this.#ask("encode", file)), name };
  }

  async pair(a, b) {
    return this.#ask("pair", { a, b });
  }

  async decode(sets, signal) {
    const images = await this.#ask("decode", { sets }, signal);
    return images.map((image) => this.#image(image));
  }

  async draw() {
    return this.#picture(await this.#ask("draw", { seed: seed() }));
  }

  async recombine() {
    const found = await this.#ask("recombine", { seed: seed() });
    return { ...found, a: this.#picture(found.a), b: this.#picture(found.b) };
  }

  async nearest(codes, signal) {
    const found = await this.#ask("nearest", { codes }, signal);
    return { ...found, picture: this.#picture(found.picture) };
  }

  async neighbours(code) {
    return this.#ask("neighbours", { code });
  }

  async readFactors(codes) {
    return this.#ask("factors/read", { codes });
  }

  async edit(codes, factor, value) {
    return this.#ask("edit", { codes, factor, value });
  }

  async writeCodes(codes) {
    const response = await this.#send("codes/write", { codes });
    return { name: "face.pivq", file: await response.blob() };
  }

  async readCodes(file) {
    this.#checkSize(file);
    return this.#ask("codes/read", file);
  }

  /** Refuses a file, a Blob, that is larger than the server takes. */
  #checkSize(file) {
    const { mostBytes } = this.#model;
    if (file.size <= mostBytes) return;
    throw new BackendError(`The file has more than ${mostBytes / 2 ** 20} MB: choose a smaller one.`);
  }

  #picture(picture) {
    return { ...picture, image: this.#image(picture.image) };
  }

  /** Converts base64 of RGB to an ImageData. */
  #image(text) {
    const rgb = atob(text);
    const { imageSize } = this.#model;
    const image = new ImageData(imageSize, imageSize);
    for (let from = 0, to = 0; from < rgb.length; to += 4) {
      image.data[to] = rgb.charCodeAt(from++);
      image.data[to + 1] = rgb.charCodeAt(from++);
      image.data[to + 2] = rgb.charCodeAt(from++);
      image.data[to + 3] = 255;
    }
    return image;
  }

  /** Sends a request; the answer is JSON. */
  async #ask(name, body, signal) {
    const response = await this.#send(name, body, signal);
    try {
      return await response.json();
    } catch {
      signal?.throwIfAborted();
      throw new BackendError("The answer of the server is cut short: is it still running?");
    }
  }

  /** Sends a request: a file as it is, anything else as JSON; without a body, a GET. */
  async #send(name, body, signal) {
    const options = { signal };
    if (body !== undefined) {
      options.method = "POST";
      options.body = body instanceof Blob ? body : JSON.stringify(body);
      options.headers = { "X-Model": this.#model.id }; // another one may be served by now
    }
    let response;
    try {
      response = await fetch(`api/${name}`, options);
    } catch {
      signal?.throwIfAborted();
      throw new BackendError("The server does not answer: is it still running?");
    }
    if (response.ok) return response;
    // The link of the page is to the model before, and a reload is to open the one there is now.
    if (response.status === 409 && location.hash) history.replaceState(null, "", location.pathname);
    const { error = "the server failed" } = await response.json().catch(() => ({}));
    throw new BackendError(`${error[0].toUpperCase()}${error.slice(1)}.`);
  }
}

/** A random seed. */
function seed() {
  return crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
}
