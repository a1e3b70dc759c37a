/** How much exchanges of codes change the image, and a way from A to B of which each step is seen. */

import { visibleChange } from "./pictures.js";
import { exchange, exchangeOrder } from "./state.js";

/** Share of pixels from which on a change is counted as seen. */
export const LEAST = 0.002;

/**
 * The order in which the slider exchanges pairs: those that change A most first.
 *
 * @typedef {object} Path
 * @property {number[]} order - the slots of pairs that differ.
 * @property {number[]} stops - of the slider: numbers of pairs exchanged, from 0 to all of them. Each
 *     image is seen to differ from the one before, except that the last one may not. All numbers if
 *     nothing is seen on the way.
 */

/** Finds effects by decoding, some sets at a time, so that what else is asked for need not wait. */
export class Effects {
  #backend;
  #model;

  constructor(backend, model) {
    this.#backend = backend;
    this.#model = model;
  }

  /**
   * What the exchange of each pair that differs would change in the image of a state.
   *
   * @returns {Promise<Map<number, number>>} the share of pixels that change visibly, by slot; a slot
   *     is missing whose other code is in the image already.
   */
  async find(state, signal) {
    const slots = exchangeOrder(state.pairs).filter((slot) => {
      const code = exchange(state, slot).codes[slot];
      return this.#model.kind !== "matching" || !state.codes.includes(code);
    });
    const sets = slots.map((slot) => exchange(state, slot).codes);
    const [before, ...images] = await this.#decode([state.codes, ...sets], signal);
    return new Map(slots.map((slot, index) => [slot, visibleChange(before, images[index])]));
  }

  /** @returns {Promise<Path>} */
  async findPath(pairs, signal) {
    const effects = await this.find({ pairs, codes: pairs.a }, signal);
    const order = exchangeOrder(pairs).sort((one, other) => effects.get(other) - effects.get(one));
    const codes = [...pairs.a];
    const sets = order.map((slot) => {
      codes[slot] = pairs.b[slot];
      return [...codes];
    });
    let [last, ...images] = await this.#decode([pairs.a, ...sets], signal);
    const stops = [0];
    for (const [index, image] of images.entries()) {
      if (visibleChange(last, image) < LEAST) continue;
      stops.push(index + 1);
      last = image;
    }
    if (stops.length === 1) return { order, stops: [0, ...order.map((_, index) => index + 1)] };
    if (stops.at(-1) !== order.length) stops.push(order.length);
    return { order, stops };
  }

  async #decode(sets, signal) {
    const images = [];
    for (let start = 0; start < sets.length; start += this.#model.batch) {
      images.push(...(await this.#backend.decode(sets.slice(start, start + this.#model.batch), signal)));
    }
    signal.throwIfAborted();
    return images;
  }
}
