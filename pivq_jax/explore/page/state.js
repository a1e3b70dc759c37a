/**
 * The state of the page, undo, and links. States are never changed, only replaced.
 *
 * @typedef {object} Side
 * @property {string} name
 * @property {number[]} codes
 * @property {ImageData} image
 * @property {number} [example] - its index, if it is one of the backend's examples.
 *
 * @typedef {object} State
 * @property {Side} a
 * @property {Side} b
 * @property {import("./backend.js").Pairs} pairs
 * @property {number[]} codes - the code in each slot: that of `pairs.a`, of `pairs.b`, or another.
 */

import { BackendError } from "./backend.js";

const MAX_UNDO = 500;
const MAX_NAME = 60; // characters of a name in a link

/** The slots of pairs that differ, those of the most similar codes first. */
export function exchangeOrder(pairs) {
  const slots = [...pairs.a.keys()].filter((slot) => pairs.a[slot] !== pairs.b[slot]);
  return slots.sort((one, other) => pairs.cost[one] - pairs.cost[other] || one - other);
}

/** How many codes differ between two sets in the order of slots. */
export function countDiffering(codes, others) {
  return codes.filter((code, slot) => code !== others[slot]).length;
}

/** Exchanges a code for its partner; a code put in by hand for that of A. */
export function exchange(state, slot, kind) {
  const { pairs, codes } = state;
  return replace(state, slot, (codes[slot] === pairs.a[slot] ? pairs.b : pairs.a)[slot], kind);
}

/** Puts a code into a slot. */
export function replace(state, slot, code, kind) {
  const holder = state.codes.indexOf(code);
  if (kind === "matching" && holder >= 0 && holder !== slot) {
    throw new BackendError(`Code ${code} is in the image already: take it out there first.`);
  }
  return { ...state, codes: state.codes.with(slot, code) };
}

/** A, with the codes of B in some slots; codes put in by hand are taken out. */
export function interpolate(state, slots) {
  const { pairs } = state;
  const codes = [...pairs.a];
  for (const slot of slots) codes[slot] = pairs.b[slot];
  return { ...state, codes };
}

/** The states that were shown, in order; one of them is present. */
export class History {
  #states = [];
  #place = -1;
  #gesture = null;

  /** @type {State | null} */
  get present() {
    return this.#states[this.#place] ?? null;
  }

  /**
   * @param {State} state
   * @param {string} [gesture] - states of one gesture, such as pulling the slider, are undone at once.
   */
  push(state, gesture = null) {
    const past = this.#states.slice(0, this.#place + 1);
    if (gesture !== null && gesture === this.#gesture) past.pop();
    this.#states = [...past.slice(-MAX_UNDO), state];
    this.#place = this.#states.length - 1;
    this.#gesture = gesture;
  }

  /** The state in which a gesture began, or would begin now. */
  before(gesture) {
    return this.#states[this.#place - (gesture === this.#gesture ? 1 : 0)];
  }

  /** Ends a gesture. */
  end() {
    this.#gesture = null;
  }

  /** Whether there is a state before the present one (-1), or one after it (1). */
  has(step) {
    return this.#place + step in this.#states;
  }

  /** Makes the state before (-1) or after (1) the present one. */
  go(step) {
    this.#place += step;
    this.#gesture = null;
  }
}

/** The fragment of a link to a state, without "#". */
export function toFragment(state, model) {
  const fields = new URLSearchParams({ m: model.id });
  for (const name of ["a", "b"]) {
    const side = state[name];
    fields.set(name, side.codes.join("."));
    fields.set(`${name}n`, side.name.slice(0, MAX_NAME));
    if (side.example !== undefined) fields.set(`${name}e`, side.example);
  }
  fields.set("c", state.codes.join("."));
  return fields.toString();
}

/** Opens a link: the `State` of its fragment, which may be anything. */
export async function fromFragment(fragment, model, backend) {
  const fields = new URLSearchParams(fragment);
  if (fields.get("m") !== model.id) {
    throw new BackendError("The link is for another model: open it where that model is served.");
  }
  const side = async (name) => {
    const text = fields.get(name) ?? "";
    const original = async (example) => ({ ...(await backend.example(example)), example });
    if (/^e\d{1,9}$/.test(text)) return original(Number(text.slice(1))); // a link without codes
    const codes = parseCodes(text, model);
    // Where the page has other examples, those of the link are shown as they are decoded.
    const example = Number(/^\d{1,9}$/.exec(fields.get(`${name}e`))?.[0]);
    if (example < model.examples) {
      const picture = await original(example);
      if (!countDiffering(codes, picture.codes)) return picture;
    }
    const [image] = await backend.decode([codes]);
    return { name: (fields.get(`${name}n`) ?? "").slice(0, MAX_NAME), codes, image };
  };
  const [a, b] = [await side("a"), await side("b")];
  const codes = parseCodes(fields.get("c") ?? "", model);
  return { a, b, pairs: await backend.pair(a.codes, b.codes), codes };
}

function parseCodes(text, model) {
  const codes = /^\d{1,9}(\.\d{1,9})*$/.test(text) ? text.split(".").map(Number) : [];
  const fit =
    codes.length === model.numCodes &&
    codes.every((code) => code < model.codebookSize) &&
    (model.kind !== "matching" || new Set(codes).size === codes.length);
  if (!fit) throw new BackendError("The link is damaged: copy it again.");
  return codes;
}
