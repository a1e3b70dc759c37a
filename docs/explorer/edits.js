/** Edits of labelled factors: `pivq_jax/sampling/edit.py` for single images. */

import { EDIT_LIFT_WEIGHT, KEPT_WEIGHT, LEAST_EVIDENCE, WANTED_WEIGHT } from "./constants.js";
import { match } from "./matching.js";
import { cheapest, distanceScale, pairCodes, squaredDistance } from "./pairing.js";

/**
 * How often training images have each value of each factor.
 *
 * @typedef {object} FactorTable
 * @property {Float32Array} given - [K, A, C], log p(value | code), 0 beyond the values of a factor.
 * @property {Float32Array} overall - [A, C], log p(value), -Infinity beyond them.
 * @property {number} factors - A.
 * @property {number} values - C, the most values of a factor.
 */

/**
 * Reads the factors of an image from its codes, `pivq_jax.sampling.edit.read_factors`.
 *
 * @param {number[]} codes
 * @param {FactorTable} table
 * @returns {number[][]} [A, C], the probability of each value.
 */
export function readFactors(codes, { given, overall, factors, values }) {
  return Array.from({ length: factors }, (_, factor) => {
    const logs = Array.from({ length: values }, (_, value) => {
      const at = factor * values + value;
      if (overall[at] === -Infinity) return -Infinity;
      return codes.reduce((sum, k) => sum + given[k * factors * values + at] - overall[at], overall[at]);
    });
    const most = Math.max(...logs);
    const total = logs.reduce((sum, log) => sum + Math.exp(log - most), 0);
    return logs.map((log) => Math.exp(log - most) / total);
  });
}

/**
 * Gives a factor another value, `pivq_jax.sampling.edit.edit`.
 *
 * @param {number[]} codes
 * @param {number} factor
 * @param {number} value - the wanted value.
 * @param {FactorTable} table
 * @param {import("./pairing.js").Codebook} codebook
 * @param {Float32Array} lift - [K, K], the result of `logLift`.
 * @param {"matching"|"nearest"} kind
 * @returns {number[]} in the order of `codes`: each entry stays or is replaced by the one it is
 *     paired with.
 */
export function edit(codes, factor, value, table, codebook, lift, kind) {
  const { values, size, dim } = codebook;
  const { given, overall } = table;
  const width = table.factors * table.values; // of an entry in the table
  const wanted = factor * table.values + value;
  const goal = readFactors(codes, table).map((row) => row.map((probability) => probability * KEPT_WEIGHT));
  goal[factor] = goal[factor].map((_, other) => (other === value ? WANTED_WEIGHT : 0));
  const flat = goal.flat();
  const fit = Array.from({ length: size }, (_, k) =>
    flat.reduce((sum, weight, at) => sum + weight * given[k * width + at], 0),
  );

  const scale = distanceScale(codebook);
  const least = lift.reduce((one, other) => Math.min(one, other));
  const cost = new Float64Array(codes.length * size);
  for (const [n, code] of codes.entries()) {
    const stays = given[code * width + wanted] - overall[wanted] >= LEAST_EVIDENCE;
    for (let k = 0; k < size; k++) {
      let change = Infinity;
      if (k === code) change = EDIT_LIFT_WEIGHT * least; // a code is its own best alternative
      else if (!stays) {
        const distance = scale * squaredDistance(values, code * dim, values, k * dim, dim);
        change = distance + EDIT_LIFT_WEIGHT * lift[code * size + k];
      }
      cost[n * size + k] = change - fit[k];
    }
  }
  const columns = kind === "matching" ? match(cost, codes.length, size) : cheapest(cost, codes.length);
  return inOrder(codes, pairCodes(codes, [...columns], codebook, kind).b);
}

/** The partners of sorted codes, in the order of the codes as they are. */
function inOrder(codes, partners) {
  const order = [...codes.keys()].sort((m, n) => codes[m] - codes[n] || m - n);
  const result = [...codes];
  order.forEach((n, rank) => (result[n] = partners[rank]));
  return result;
}
