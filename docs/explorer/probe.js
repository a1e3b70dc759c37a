/** Labelled factors of images: `read_values` of pivq_jax/explore/factors.py. */

/**
 * Linear scores of all V values of all factors, one factor after another.
 *
 * @typedef {object} Probe
 * @property {Float32Array} weights - [V, F], of the grey levels of F pixels times channels.
 * @property {Float32Array} bias - [V], -Infinity for values that no training image has.
 * @property {Float32Array} least - [V, V], by how much a score must exceed that of each other value
 *     of its factor for the value to be sure.
 * @property {number[]} sizes - [A], the number of values of each factor.
 */

/**
 * Reads the factors of an image.
 *
 * @param {ArrayLike<number>} rgba - grey levels of opaque pixels, the result of `shrink`.
 * @param {Probe} probe
 * @returns {number[]} [A], the value of each factor, -1 where none is sure.
 */
export function readValues(rgba, { weights, bias, least, sizes }) {
  const levels = Array.from(rgba).filter((_, i) => i % 4 < 3);
  const scores = Array.from(bias, (start, value) =>
    levels.reduce((sum, level, i) => sum + level * weights[value * levels.length + i], start),
  );
  let first = 0;
  return sizes.map((size) => {
    const own = scores.slice(first, first + size);
    const best = own.indexOf(Math.max(...own));
    const row = (first + best) * scores.length + first; // of the value in `least`
    first += size;
    return own.every((score, other) => own[best] - score >= least[row + other]) ? best : -1;
  });
}
