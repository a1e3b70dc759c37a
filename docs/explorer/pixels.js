/** Pixels: to and from the networks, and resized as in training. Images are `ImageData`-like. */

import { SEARCH_SIZE } from "./constants.js";
import { roundHalfToEven } from "./pairing.js";

const PRECISION = 2 ** 22; // of Pillow's weights
const LOBES = 3; // of the Lanczos kernel

/** Bytes [..., 4] of RGBA to float32 [..., 3] in [-1, 1], as `images_to_float`. */
export function toFloat(rgba) {
  const values = new Float32Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from++) {
    if (from % 4 < 3) values[to++] = Math.fround(rgba[from] / 127.5) - 1;
  }
  return values;
}

/** Float32 [..., 3] in [-1, 1] to bytes [..., 4] of opaque RGBA, as `images_to_uint8`. */
export function toBytes(values) {
  const rgba = new Uint8ClampedArray((values.length / 3) * 4).fill(255);
  for (let from = 0, to = 0; from < values.length; from++, to++) {
    if (to % 4 === 3) to++;
    rgba[to] = roundHalfToEven(Math.fround(Math.fround(values[from] + 1) * 127.5)); // and clamped
  }
  return rgba;
}

/**
 * Resizes RGBA as Pillow does with Lanczos: along rows, then along columns, with rounding between.
 *
 * @param {{data: Uint8ClampedArray, width: number, height: number}} image
 * @param {number} size - width and height of the result.
 * @returns {Uint8ClampedArray} [size, size, 4].
 */
export function resize({ data, width, height }, size) {
  const rows = width === size ? data : resample(data, lanczosWeights(width, size), height, width * 4, size * 4, 4, 4);
  if (height === size) return rows;
  return resample(rows, lanczosWeights(height, size), size, 4, 4, size * 4, size * 4);
}

/**
 * Shrinks an opaque image for the search of the nearest one, as `shrink` in
 * pivq_jax/explore/pool.py: antialiased linear interpolation to at most 32 x 32 pixels.
 *
 * @param {{data: Uint8ClampedArray, width: number}} image - square.
 * @returns {Float64Array} [s, s, 4], rounded grey levels.
 */
export function shrink({ data, width }) {
  const size = Math.min(width, SEARCH_SIZE);
  const weights = linearWeights(width, size);
  const rows = weighted(data, weights, width, width * 4, size * 4, 4, 4);
  return weighted(rows, weights, size, 4, 4, size * 4, size * 4).map(roundHalfToEven);
}

/**
 * @typedef {{first: number, values: number[]}} Weights - of the pixels from `first` on.
 */

/** @returns {Weights[]} for each pixel of the result; sums are one in fixed point. */
function lanczosWeights(length, size) {
  const scale = length / size;
  const spread = Math.max(scale, 1);
  return Array.from({ length: size }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - LOBES * spread + 0.5));
    const end = Math.min(length, Math.trunc(center + LOBES * spread + 0.5));
    const values = Array.from({ length: end - first }, (_, x) =>
      lanczos((x + first - center + 0.5) / spread),
    );
    const sum = values.reduce((total, value) => total + value);
    const fixed = values.map((value) => {
      const scaled = (value / sum) * PRECISION;
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    return { first, values: fixed };
  });
}

function lanczos(x) {
  return Math.abs(x) < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** @returns {Weights[]} of a triangle as wide as two pixels of the result. */
function linearWeights(length, size) {
  const scale = length / size;
  return Array.from({ length: size }, (_, i) => {
    const center = (i + 0.5) * scale - 0.5;
    const all = Array.from({ length }, (_, x) => Math.max(0, 1 - Math.abs(x - center) / scale));
    const first = all.findIndex((value) => value > 0);
    const values = all.slice(first).filter((value) => value > 0);
    const sum = values.reduce((total, value) => total + value);
    return { first, values: values.map((value) => value / sum) };
  });
}

/** Weighted sums in fixed point, rounded to bytes; see `weighted`. */
function resample(data, weights, lines, fromLine, toLine, step, toStep) {
  const sums = weighted(data, weights, lines, fromLine, toLine, step, toStep);
  return Uint8ClampedArray.from(sums, (sum) => Math.floor(sum / PRECISION + 0.5));
}

/**
 * Weighted sums of pixels along one axis.
 *
 * @param {ArrayLike<number>} data - pixels of four channels.
 * @param {Weights[]} weights - for each pixel of the result along the axis.
 * @param {number} lines - number of lines along the axis.
 * @param {number} fromLine - distance of two lines in `data`, and `toLine` in the result.
 * @param {number} toLine
 * @param {number} step - distance of two pixels of a line in `data`, and `toStep` in the result.
 * @param {number} toStep
 * @returns {Float64Array}
 */
function weighted(data, weights, lines, fromLine, toLine, step, toStep) {
  const sums = new Float64Array(lines * weights.length * 4);
  for (let line = 0; line < lines; line++) {
    for (const [i, { first, values }] of weights.entries()) {
      const to = line * toLine + i * toStep;
      for (let channel = 0; channel < 4; channel++) {
        let from = line * fromLine + first * step + channel;
        let sum = 0;
        for (const value of values) {
          sum += value * data[from];
          from += step;
        }
        sums[to + channel] = sum;
      }
    }
  }
  return sums;
}
