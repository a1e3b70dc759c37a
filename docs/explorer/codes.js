/** Files of codes, as `pivq_jax.codec` writes them with the fixed code; see docs/codec.md. */

import { BackendError } from "./backend.js";
import { canonical } from "./pairing.js";

const MAGIC = "PIVQ";
const VERSION = 1;
const KINDS = ["matching", "nearest", "positional"];
const FIXED = 0;
const HEAD = 35; // bytes
const CHECKSUM = 8;

/**
 * Writes a code set as a file.
 *
 * @param {number[]} codes
 * @param {import("./backend.js").Model} model - `id` is the fingerprint of its weights.
 * @returns {Promise<Uint8Array>}
 */
export async function writeCodes(codes, model) {
  const { id, kind, numCodes, codebookSize, imageSize } = model;
  const names = await deflate(new TextEncoder().encode("face\0"));
  const data = toBytes(rank(codes, codebookSize, kind), bytesOfRank(model));
  const body = new Uint8Array(HEAD + names.length + data.length);
  body.set(new TextEncoder().encode(MAGIC));
  body.set([VERSION, KINDS.indexOf(kind), FIXED], 4);
  const view = new DataView(body.buffer);
  view.setBigUint64(7, BigInt(`0x${id}`));
  [numCodes, codebookSize, imageSize, 1, names.length].forEach((n, i) => view.setUint32(15 + 4 * i, n));
  body.set(names, HEAD);
  body.set(data, HEAD + names.length);
  const file = new Uint8Array(body.length + CHECKSUM);
  file.set(body);
  file.set(await checksum(body), body.length);
  return file;
}

/**
 * Reads the first code set of a file.
 *
 * @param {Uint8Array} file
 * @param {import("./backend.js").Model} model - one of another model is refused.
 * @returns {Promise<number[]>}
 * @throws {BackendError} if it is no such file, is damaged, or cannot be read here.
 */
export async function readCodes(file, model) {
  if (new TextDecoder().decode(file.subarray(0, 4)) !== MAGIC) {
    throw new BackendError("The file is not a file of codes: give one that was saved here.");
  }
  if (file[4] !== VERSION) throw new BackendError(`The file has version ${file[4]}, this page reads ${VERSION}.`);
  const body = file.subarray(0, -CHECKSUM);
  const damaged = new BackendError("The file is damaged or incomplete: copy it again.");
  const sum = await checksum(body);
  if (body.length < HEAD || sum.some((byte, i) => byte !== file[body.length + i])) throw damaged;
  const view = new DataView(file.buffer, file.byteOffset);
  const id = view.getBigUint64(7).toString(16).padStart(16, "0");
  const [numCodes, codebookSize, imageSize, count, listed] = [0, 1, 2, 3, 4].map((i) => view.getUint32(15 + 4 * i));
  const claimed = { id, kind: KINDS[file[5]], numCodes, codebookSize, imageSize };
  if (Object.keys(claimed).some((name) => claimed[name] !== model[name])) {
    throw new BackendError(`The file is of another model, ${id}: this one is ${model.id}.`);
  }
  if (file[6] !== FIXED) {
    throw new BackendError("The file is written with a prior, which this page does not read: compress without it.");
  }
  const size = bytesOfRank(model);
  const data = body.subarray(HEAD + listed);
  if (!count || data.length !== count * size) throw damaged;
  const number = toNumber(data.subarray(0, size));
  if (number >= countSets(model)) throw damaged;
  return unrank(number, model);
}

/** C(n, r). */
function binomial(n, r) {
  let value = 1n;
  for (let i = 1; i <= r; i++) value = (value * BigInt(n - r + i)) / BigInt(i);
  return value;
}

/** How many sets, multisets or sequences there are. */
function countSets({ kind, numCodes, codebookSize }) {
  if (kind === "positional") return BigInt(codebookSize) ** BigInt(numCodes);
  return binomial(codebookSize + (kind === "nearest" ? numCodes - 1 : 0), numCodes);
}

function bytesOfRank(model) {
  const last = countSets(model) - 1n;
  return last ? Math.ceil(last.toString(2).length / 8) : 0;
}

/**
 * The number of a set among all in lexicographic order. The n-th code of a sorted multiset plus n is
 * the n-th code of a set of K + N - 1 entries; before a set come all but those after it, of which
 * C(K - 1 - c_n, N - n) have the same codes before the n-th one and a larger n-th one.
 */
function rank(codes, codebookSize, kind) {
  if (kind === "positional") return codes.reduce((n, code) => n * BigInt(codebookSize) + BigInt(code), 0n);
  const count = codes.length;
  const shift = kind === "nearest" ? 1 : 0;
  const last = codebookSize - 1 + shift * (count - 1);
  const after = canonical(codes, kind).reduce((sum, code, n) => {
    const behind = last - code - shift * n;
    return sum + (behind < count - n ? 0n : binomial(behind, count - n));
  }, 0n);
  return binomial(last + 1, count) - 1n - after;
}

/** The inverse of `rank`. */
function unrank(number, { kind, numCodes, codebookSize }) {
  if (kind === "positional") {
    const codes = [];
    for (let n = 0; n < numCodes; n++) {
      codes.unshift(Number(number % BigInt(codebookSize)));
      number /= BigInt(codebookSize);
    }
    return codes;
  }
  const shift = kind === "nearest" ? 1 : 0;
  const last = codebookSize - 1 + shift * (numCodes - 1);
  let after = binomial(last + 1, numCodes) - 1n - number;
  let behind = last;
  let sets = behind < numCodes ? 0n : binomial(behind, numCodes); // C(behind, numCodes - n)
  return Array.from({ length: numCodes }, (_, n) => {
    const left = numCodes - n;
    while (sets > after) {
      sets = (sets * BigInt(behind - left)) / BigInt(behind);
      behind--;
    }
    const code = last - behind - shift * n;
    after -= sets;
    if (left > 1) sets = (sets * BigInt(left)) / BigInt(behind);
    behind--;
    return code;
  });
}

/** A number as bytes, the most significant first. */
function toBytes(number, size) {
  const digits = size ? number.toString(16).padStart(2 * size, "0") : "";
  return Uint8Array.from({ length: size }, (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

function toNumber(bytes) {
  return bytes.reduce((number, byte) => number * 256n + BigInt(byte), 0n);
}

async function checksum(body) {
  if (!globalThis.crypto?.subtle) {
    throw new BackendError("Browsers allow files of codes on secure pages only: open this one by https.");
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", body)).subarray(0, CHECKSUM);
}

async function deflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
