/**
 * The backend of the page without a server: the model runs in the visitor's browser, through
 * onnxruntime-web on one thread. Its files are those that docs/build_explorer.py writes.
 */

import { BackendError, checkSize } from "./backend.js";
import { readCodes, writeCodes } from "./codes.js";
import { edit } from "./edits.js";
import { claimedSize } from "./headers.js";
import { env, InferenceSession, Tensor } from "./ort.wasm.bundle.min.mjs";
import { canonical, logLift, pairCodes, quantize, recombine, squaredDistance } from "./pairing.js";
import { change } from "./pictures.js";
import { resize, shrink, toBytes, toFloat } from "./pixels.js";
import { readValues } from "./probe.js";
import { readSafetensors } from "./safetensors.js";

const MAX_PIXELS = 8192 * 6144; // of a person's own image

const RUNTIME = "ort-wasm-simd-threaded.wasm";
const DECODER = "model.decoder.onnx";
const CODES = "model.codes.safetensors";
const FACTORS = "factors.safetensors";

/** @implements {import("./backend.js").Backend} */
export class BrowserBackend {
  #model; // see backend.js
  #testCodes;
  #trainingCodes; // [M, N] of all images that the log lift counts; some of them have pictures
  #parents; // pairs of training images that are alike; none if any two may be parents
  #codebook; // see pairing.js
  #lift; // [K, K]; undefined if positional
  #table; // see edits.js; undefined without factors
  #probe; // see probe.js; undefined without factors
  #decoder;
  #running = Promise.resolve(); // onnxruntime does one thing at a time

  // Loaded when they are first needed.
  #encoder = once(() => session("model.encoder.onnx"));
  #tests = once(() => Album.load("test.png", this.#model.imageSize));
  #training = once(() => Album.load("training.png", this.#model.imageSize));
  #small = once(async () => {
    const album = await this.#training();
    return Array.from({ length: this.#model.trainingImages }, (_, i) => shrink(album.image(i)));
  });

  async open(progress) {
    const { model, testCodes, parents, sizes } = await load("explorer.json", (file) => file.json());
    this.#model = model;
    this.#testCodes = testCodes;
    this.#parents = parents;
    const names = [RUNTIME, DECODER, CODES, ...(model.factors.length ? [FACTORS] : [])];
    const total = names.reduce((sum, name) => sum + sizes[name], 0);
    let done = 0;
    const [runtime, decoder, codes, counts] = await Promise.all(
      names.map((name) =>
        load(name, (file) =>
          collect(file, (bytes) => {
            done += bytes;
            progress("Loading the model", Math.min(done / total, 1));
          }),
        ),
      ),
    );
    progress("Compiling the model", 1);
    env.wasm.numThreads = 1;
    env.wasm.wasmBinary = runtime;
    this.#decoder = await session(decoder);

    const arrays = readSafetensors(codes.buffer);
    const [size, dim] = arrays.codebook.shape;
    this.#codebook = { values: arrays.codebook.values, size, dim };
    this.#trainingCodes = arrays.training_codes.values;
    if (model.kind !== "positional") {
      this.#lift = logLift(this.#trainingCodes, model.numCodes, size);
    }
    if (counts) {
      const { given_code: given, overall, weights, bias, least } = readSafetensors(counts.buffer);
      const [factors, values] = overall.shape;
      const sizes = model.factors.map((factor) => factor.values.length);
      this.#probe = { weights: weights.values, bias: bias.values, least: least.values, sizes };
      this.#table = { given: given.values, overall: overall.values, factors, values };
    }
    return model;
  }

  async model() {
    return this.#model;
  }

  async progress() {
    return { text: "", fraction: 1 };
  }

  async examples(start, count) {
    const album = await this.#tests();
    const { mostExamples, examples } = this.#model;
    const length = Math.min(count, mostExamples, examples - start);
    return Array.from({ length }, (_, i) => album.image(start + i));
  }

  async example(index) {
    if (!this.#testCodes[index]) throw new BackendError(`There is no test image ${index}: choose another one.`);
    const image = (await this.#tests()).image(index);
    return { name: `test image ${index}`, codes: this.#testCodes[index], image };
  }

  async encode(file, name) {
    const { imageSize, kind } = this.#model;
    checkSize(file, this.#model);
    const data = resize(await readImage(file), imageSize);
    const images = new Tensor("float32", toFloat(data), [1, imageSize, imageSize, 3]);
    const { latents } = await this.#run(await this.#encoder(), { images });
    const codes = quantize(latents.data, this.#codebook, kind);
    return { name, codes, image: new ImageData(data, imageSize) };
  }

  async pair(a, b) {
    return pairCodes(a, b, this.#codebook, this.#model.kind);
  }

  async decode(sets, signal) {
    const { imageSize, kind } = this.#model;
    const { values, dim } = this.#codebook;
    // The last bits of sums depend on the order of codes: sorted, a set has one image.
    const codes = sets.flatMap((set) => canonical(set, kind));
    const entries = new Float32Array(codes.length * dim);
    codes.forEach((code, n) => entries.set(values.subarray(code * dim, (code + 1) * dim), n * dim));
    const vectors = new Tensor("float32", entries, [sets.length, codes.length / sets.length, dim]);
    const { images } = await this.#run(this.#decoder, { vectors }, signal);
    const pixels = toBytes(images.data);
    const bytes = pixels.length / sets.length;
    return sets.map((_, i) => new ImageData(pixels.slice(i * bytes, (i + 1) * bytes), imageSize));
  }

  async recombine() {
    const [first, second] = this.#drawParents();
    const a = await this.#trainingImage(first);
    const b = await this.#trainingImage(second);
    const pairs = await this.pair(a.codes, b.codes);
    const direction = Array.from({ length: this.#codebook.dim }, normal);
    const codes = recombine(pairs, this.#codebook, direction, 0.5, this.#lift);
    return { a, b, pairs, codes };
  }

  async draw() {
    throw new BackendError("There is no prior on this page: use the explorer of the package.");
  }

  async nearest(codes, signal) {
    const small = await this.#small();
    const [image] = await this.decode([codes], signal);
    const wanted = shrink(image);
    let best = { index: -1, distance: Infinity };
    small.forEach((one, index) => {
      const distance = one.reduce((sum, value, i) => sum + (value - wanted[i]) ** 2, 0);
      if (distance < best.distance) best = { index, distance };
    });
    const picture = await this.#trainingImage(best.index);
    const { mean } = change(picture.image, image);
    return { picture, difference: mean, searched: small.length };
  }

  async neighbours(code) {
    const { values, size, dim } = this.#codebook;
    const distance = Array.from({ length: size }, (_, other) =>
      squaredDistance(values, code * dim, values, other * dim, dim),
    );
    return [...distance.keys()].filter((k) => k !== code).sort((k, l) => distance[k] - distance[l]);
  }

  async readFactors(codes) {
    const [image] = await this.decode([codes]);
    return readValues(shrink(image), this.#probe);
  }

  async edit(codes, factor, value) {
    return edit(codes, factor, value, this.#table, this.#codebook, this.#lift, this.#model.kind);
  }

  async writeCodes(codes) {
    return { name: "face.pivq", file: new Blob([await writeCodes(codes, this.#model)]) };
  }

  async readCodes(file) {
    checkSize(file, this.#model);
    return readCodes(new Uint8Array(await file.arrayBuffer()), this.#model);
  }

  /** Two different training images. */
  #drawParents() {
    const below = (count) => Math.floor(Math.random() * count);
    if (this.#parents.length) return this.#parents[below(this.#parents.length)];
    const first = below(this.#model.trainingImages);
    const other = below(this.#model.trainingImages - 1);
    return [first, other + (other >= first)];
  }

  async #trainingImage(index) {
    const { numCodes } = this.#model;
    const codes = [...this.#trainingCodes.subarray(index * numCodes, (index + 1) * numCodes)];
    return { name: `training image ${index}`, codes, image: (await this.#training()).image(index) };
  }

  /** Runs a network when its turn comes, unless it is aborted by then. */
  #run(network, input, signal) {
    const result = this.#running.then(() => {
      signal?.throwIfAborted();
      return network.run(input);
    });
    this.#running = result.catch(() => {});
    return result;
  }
}

/** Many images in one file, in rows. */
class Album {
  #bitmap;
  #size;
  #context;

  /** Loads the images of `size` pixels in a PNG file. */
  static async load(name, size) {
    const album = new Album();
    album.#bitmap = await createImageBitmap(await load(name, (file) => file.blob()), EXACT);
    album.#size = size;
    album.#context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
    return album;
  }

  image(index) {
    const columns = this.#bitmap.width / this.#size;
    const [left, top] = [index % columns, Math.floor(index / columns)];
    this.#context.drawImage(this.#bitmap, -left * this.#size, -top * this.#size);
    return this.#context.getImageData(0, 0, this.#size, this.#size);
  }
}

/** Pixels as they are in the file. */
const EXACT = { colorSpaceConversion: "none" };

/** Loads a file that belongs to the page. */
async function load(name, read) {
  try {
    const file = await fetch(name, { cache: "no-cache" }); // all files of one model, or none
    if (file.ok) return await read(file);
  } catch {
    // Below.
  }
  throw new BackendError(`${name} could not be loaded: check the connection and reload the page.`);
}

/** The bytes of a response, which are counted as they come. */
async function collect(response, count) {
  const parts = [];
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    count(value.length);
  }
}

/** Opens a network, given its name or its bytes. */
async function session(source) {
  const bytes = typeof source === "string" ? await load(source, (file) => file.arrayBuffer()) : source;
  return InferenceSession.create(bytes, { executionProviders: ["wasm"] });
}

/** Makes a function that does something once, when first called, and again only if it failed. */
function once(make) {
  let made = null;
  return () => {
    made ??= make().catch((error) => {
      made = null;
      throw error;
    });
    return made;
  };
}

/** Decodes a file and takes its central square, with transparency on white. */
async function readImage(file) {
  const claimed = claimedSize(new Uint8Array(await file.arrayBuffer()));
  if (claimed && claimed.width * claimed.height > MAX_PIXELS) {
    const [wide, high, most] = [claimed.width, claimed.height, MAX_PIXELS].map((n) => n.toLocaleString("en"));
    throw new BackendError(`The image has ${wide} x ${high} pixels, more than ${most}: make it smaller.`);
  }
  const bitmap = claimed && (await createImageBitmap(file, EXACT).catch(() => null));
  if (!bitmap) throw new BackendError("The file is no PNG, JPEG or WebP image: choose another one.");
  const { width, height } = bitmap; // as it is shown, which may be turned
  const side = Math.min(width, height);
  const context = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, side, side);
  context.drawImage(bitmap, -Math.floor((width - side) / 2), -Math.floor((height - side) / 2));
  return context.getImageData(0, 0, side, side);
}

/** A draw from a normal distribution (Box and Muller 1958). */
function normal() {
  const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
  return radius * Math.cos(2 * Math.PI * Math.random());
}
