/** Code sets: quantization, pairing, recombination; `pivq_jax.sampling` for single images. */

import { PAIRING_LIFT_WEIGHT, SLACK } from "./constants.js";
import { match } from "./matching.js";

/**
 * @typedef {object} Codebook
 * @property {Float32Array} values - [size, dim], row by row.
 * @property {number} size - K.
 * @property {number} dim - D.
 */

const NONE = -1; // no pair

const SMALLEST = 2 ** -126; // normal float32

/** Squared distance of the vectors of `dim` values that begin at two places. */
export function squaredDistance(one, from, other, to, dim) {
  let sum = 0;
  for (let d = 0; d < dim; d++) sum += (one[from + d] - other[to + d]) ** 2;
  return sum;
}

/** Codes in canonical order: sorted, except for `positional`, where places count. */
export function canonical(codes, kind) {
  return kind === "positional" ? [...codes] : [...codes].sort((a, b) => a - b);
}

/**
 * Assigns codebook entries to the latents of an image.
 *
 * @param {Float32Array} latents - [N, D]
 * @param {Codebook} codebook
 * @param {"matching"|"nearest"|"positional"} kind - one to one at minimum total squared distance,
 *     or to each its nearest entry.
 * @returns {number[]} the codes, N, canonical.
 * @throws {RangeError} if latents are not finite.
 */
export function quantize(latents, codebook, kind) {
  return canonical(assign(latents, codebook, kind), kind);
}

/** The entry of each latent, in their order. */
function assign(latents, { values, size, dim }, kind) {
  const count = latents.length / dim;
  const cost = new Float64Array(count * size);
  for (let n = 0; n < count; n++) {
    for (let k = 0; k < size; k++) {
      cost[n * size + k] = squaredDistance(latents, n * dim, values, k * dim, dim);
    }
  }
  if (kind === "matching") return match(cost, count, size);
  if (!cost.every(Number.isFinite)) throw new RangeError("the latents are not finite");
  return cheapest(cost, count);
}

/** The column of least cost in each row: of [rows, columns], row by row. */
export function cheapest(cost, rows) {
  const columns = cost.length / rows;
  return Array.from({ length: rows }, (_, n) => {
    const row = cost.subarray(n * columns, (n + 1) * columns);
    return row.indexOf(row.reduce((least, value) => Math.min(least, value)));
  });
}

/**
 * Pairs two code sets, `pivq_jax.sampling.pair_codes`: codes that both have with themselves, the
 * others one-to-one at minimum total squared distance of their entries.
 *
 * @param {number[]} codesA
 * @param {number[]} codesB
 * @param {Codebook} codebook
 * @param {"matching"|"nearest"|"positional"} kind
 * @param {Float32Array} [lift] - [K, K], the result of `logLift`. Pairs then minimize the squared
 *     distance over the mean one of two entries, plus a sixteenth of the log lift.
 * @returns {{a: number[], b: number[], cost: number[]}} A in canonical order, the partners of its
 *     codes in B, and the squared distance of each pair.
 */
export function pairCodes(codesA, codesB, codebook, kind, lift) {
  const { values, size, dim } = codebook;
  const [a, b] = [canonical(codesA, kind), canonical(codesB, kind)];
  const apart = (one, other) => squaredDistance(values, one * dim, values, other * dim, dim);
  const paired = (partners) => ({ a, b: partners, cost: a.map((code, n) => apart(code, partners[n])) });
  if (kind === "positional") return paired(b);

  // The place in B of the same code, copies counted (in multisets): these pairs are fixed.
  const place = new Map(b.map((code, m) => [`${code} ${copyNumber(b, m)}`, m]));
  const same = a.map((code, n) => place.get(`${code} ${copyNumber(a, n)}`) ?? -1);
  const taken = new Set(same);
  const rows = [...a.keys()].filter((n) => same[n] < 0);
  const columns = [...b.keys()].filter((m) => !taken.has(m));

  const scale = lift ? distanceScale(codebook) : 1;
  const more = (one, other) => (lift ? PAIRING_LIFT_WEIGHT * lift[one * size + other] : 0);
  const cost = rows.flatMap((n) => columns.map((m) => scale * apart(a[n], b[m]) + more(a[n], b[m])));
  const partner = [...same];
  match(cost, rows.length, columns.length).forEach((column, row) => {
    partner[rows[row]] = columns[column];
  });
  return paired(partner.map((m) => b[m]));
}

/** How many equal codes precede one in sorted codes. */
function copyNumber(codes, index) {
  return index - codes.indexOf(codes[index]);
}

/** One over the mean squared distance of two independently drawn codebook entries. */
export function distanceScale({ values, size, dim }) {
  const mean = new Float64Array(dim);
  values.forEach((value, i) => (mean[i % dim] += value / size));
  const squares = values.reduce((sum, value, i) => sum + (value - mean[i % dim]) ** 2, 0);
  return 1 / Math.max((2 * squares) / size, SMALLEST);
}

/**
 * The log lift of all pairs of codes, `pivq_jax.sampling.log_lift`.
 *
 * @param {Int32Array} codes - [M, N], the codes of M images.
 * @param {number} count - N.
 * @param {number} size - K.
 * @returns {Float32Array} [K, K], symmetric, 0 on the diagonal.
 */
export function logLift(codes, count, size) {
  const together = new Float32Array(size * size);
  for (let start = 0; start < codes.length; start += count) {
    const present = [...new Set(codes.subarray(start, start + count))];
    for (const one of present) for (const other of present) together[one * size + other] += 1;
  }
  const images = codes.length / count;
  const single = Float32Array.from({ length: size }, (_, k) => together[k * size + k]);
  return together.map((both, i) => {
    const [one, other] = [Math.floor(i / size), i % size];
    return one === other ? 0 : Math.log((both + 1) / ((single[one] * single[other]) / images + 1));
  });
}

/**
 * Chooses the pairs that a recombination exchanges, as `pivq_jax.sampling.recombine` does: those
 * whose middles come first along a direction, then improved by moves if there are log lifts.
 *
 * @param {{a: number[], b: number[]}} pairs - from `pairCodes`.
 * @param {Codebook} codebook
 * @param {ArrayLike<number>} direction - D values from a normal distribution.
 * @param {number} fraction - fraction of the pairs that is exchanged, rounded; 0 to 1.
 * @param {Float32Array} [lift] - [K, K], the result of `logLift`.
 * @returns {number[]} N codes in the order of the pairs, each of A or of B.
 */
export function recombine({ a, b }, codebook, direction, fraction, lift) {
  const { values, dim } = codebook;
  const along = (code) => {
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += values[code * dim + d] * direction[d];
    return sum;
  };
  const middle = a.map((code, n) => along(code) + along(b[n]));
  const order = [...a.keys()].filter((n) => a[n] !== b[n]).sort((m, n) => middle[m] - middle[n] || m - n);
  const exchanged = a.map(() => false);
  const share = Math.fround(fraction);
  for (const n of order.slice(0, rounded(share, order.length))) exchanged[n] = true;
  const slack = rounded(SLACK * Math.min(share, Math.fround(1 - share)), order.length);
  if (lift) improveExchange(a, b, exchanged, codebook.size, lift, slack);
  return a.map((code, n) => (exchanged[n] ? b[n] : code));
}

/** How many of `count` pairs a share of them is, rounded as in float32. */
function rounded(share, count) {
  return roundHalfToEven(Math.fround(Math.fround(share) * count));
}

/** Rounds to the nearest integer, halves to the even one, as NumPy does. */
export function roundHalfToEven(value) {
  const down = Math.floor(value);
  const rest = value - down;
  return rest > 0.5 || (rest === 0.5 && down % 2) ? down + 1 : down;
}

/**
 * Keeps an exchanged pair, exchanges a kept one, or both, the best move first, as long as the sum
 * of the log lifts of all pairs of codes in the set grows and the number of exchanged pairs changes
 * by at most `slack` (`improve_exchange` in pivq_jax/sampling/lift.py).
 */
function improveExchange(a, b, exchanged, size, lift, slack) {
  const slots = [...a.keys()];
  const paired = slots.filter((n) => a[n] !== b[n]);
  // A code's lift with itself counts nothing, and neither does that with its own partner.
  const of = (one, other, m, n) => (m === n ? 0 : lift[one * size + other]);
  let more = 0; // exchanged pairs than at first
  for (let moves = 0; moves < a.length ** 2; moves++) {
    const now = slots.map((n) => (exchanged[n] ? b[n] : a[n]));
    const change = slots.map((m) =>
      slots.reduce((sum, n) => sum + of(b[m], now[n], m, n) - of(a[m], now[n], m, n), 0),
    );
    let best = { gain: 1e-3 }; // smaller gains are rounding errors
    const backs = [...paired.filter((n) => exchanged[n]), ...(more < slack ? [NONE] : [])];
    const forths = [...paired.filter((n) => !exchanged[n]), ...(more > -slack ? [NONE] : [])];
    for (const back of backs) {
      for (const forth of forths) {
        let gain = (forth === NONE ? 0 : change[forth]) - (back === NONE ? 0 : change[back]);
        if (back !== NONE && forth !== NONE) {
          gain +=
            of(a[back], b[forth], back, forth) +
            of(a[forth], b[back], forth, back) -
            of(a[back], a[forth], back, forth) -
            of(b[back], b[forth], back, forth);
        }
        if (gain > best.gain) best = { gain, back, forth };
      }
    }
    if (!("back" in best)) return;
    if (best.back !== NONE) exchanged[best.back] = false;
    if (best.forth !== NONE) exchanged[best.forth] = true;
    more += (best.back === NONE) - (best.forth === NONE);
  }
}
