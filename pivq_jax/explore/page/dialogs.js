/** The dialogs: images to choose from, and entries to put in the place of a code. */

import { find, make } from "./elements.js";
import { change, paint, thumbnail } from "./pictures.js";
import { chip, describe } from "./slots.js";
import { replace } from "./state.js";

const EXAMPLES = 24; // images a page
const ENTRIES = 12; // entries shown at once

/** Takes the number that a person gives in the form of a dialog. */
function takeNumber(dialog, take) {
  const number = find(`${dialog}-number`);
  find(`${dialog}-form`).addEventListener("submit", (event) => {
    event.preventDefault();
    take(number.valueAsNumber);
  });
}

/** The images of a backend, a page at a time. */
export class Examples {
  #backend;
  #model;
  #dialog = find("examples");
  #start = 0;
  #choose = null;
  #act;

  /** @param {(work: () => Promise<void>) => Promise<void>} act - runs work and shows its errors. */
  constructor(backend, model, act) {
    this.#backend = backend;
    this.#model = model;
    this.#act = act;
    find("examples-previous").addEventListener("click", () => this.#turn(this.#start - EXAMPLES));
    find("examples-next").addEventListener("click", () => this.#turn(this.#start + EXAMPLES));
    takeNumber("examples", (index) => this.#take(index));
  }

  /**
   * @param {string} letter - the side to choose for.
   * @param {(index: number) => void} choose - called with the chosen image.
   */
  open(letter, choose) {
    this.#choose = choose;
    find("title-examples").textContent = `Choose a ${this.#model.exampleName} for ${letter}`;
    find("examples-number").max = this.#model.examples - 1;
    const list = find("examples-list");
    if (!list.children.length) {
      list.append(...Array.from({ length: EXAMPLES }, () => make("div.thumb", thumbnail(null))));
    }
    this.#dialog.showModal();
    this.#turn(this.#start);
  }

  #turn(start) {
    return this.#act(async () => {
      const images = await this.#backend.examples(start, EXAMPLES);
      this.#start = start;
      const buttons = images.map((image, place) => {
        const index = start + place;
        const button = make("button.thumb", thumbnail(image), make("span", String(index)));
        button.setAttribute("aria-label", `${index}, ${this.#model.exampleName}`);
        button.addEventListener("click", () => this.#take(index));
        return button;
      });
      find("examples-list").replaceChildren(...buttons);
      const end = start + images.length;
      find("examples-where").textContent = `${start} to ${end - 1} of ${this.#model.examples}`;
      find("examples-previous").disabled = start === 0;
      find("examples-next").disabled = end >= this.#model.examples;
    });
  }

  #take(index) {
    this.#dialog.close();
    this.#choose(index);
  }
}

/** The entries that a code may be replaced by, the nearest first, each as what it would change. */
export class Entries {
  #backend;
  #model;
  #act;
  #dialog = find("entries");
  #list = find("entries-list");
  #state = null;
  #slot = 0;
  #before = null;
  #left = [];
  #choose = null;
  #ended = new AbortController();

  /** @param {(work: () => Promise<void>) => Promise<void>} act - runs work and shows its errors. */
  constructor(backend, model, act) {
    this.#backend = backend;
    this.#model = model;
    this.#act = act;
    find("entries-more").addEventListener("click", () => this.#more());
    find("entries-number").max = model.codebookSize - 1;
    takeNumber("entries", (entry) => this.#take(entry));
    this.#dialog.addEventListener("close", () => this.#ended.abort());
  }

  /**
   * @param {import("./state.js").State} state
   * @param {number} slot - of the code to replace.
   * @param {() => Promise<ImageData>} decoded - returns the image of the state.
   * @param {(code: number) => void} choose - called with the chosen entry.
   */
  open(state, slot, decoded, choose) {
    const code = state.codes[slot];
    this.#state = state;
    this.#slot = slot;
    this.#choose = choose;
    this.#left = [];
    this.#ended = new AbortController();
    const { signal } = this.#ended;
    find("title-entries").textContent = `Replace code ${code}`;
    find("entries-about").textContent =
      `${describe(code, this.#model)} Below are the entries nearest to it in the codebook, each as` +
      " the change that it makes: what stays the same is faint.";
    this.#list.replaceChildren();
    this.#dialog.showModal();
    return this.#act(async () => {
      const [entries, before] = await Promise.all([this.#backend.neighbours(code), decoded()]);
      signal.throwIfAborted();
      this.#before = before;
      const { pairs, codes } = state;
      const back = [pairs.a[slot], pairs.b[slot]].filter((own) => own !== code);
      const free = (entry) => this.#model.kind !== "matching" || !codes.includes(entry);
      this.#left = [...new Set([...back, ...entries])].filter(free);
      await this.#decode(signal);
    });
  }

  close() {
    this.#dialog.close();
  }

  #more() {
    const shown = this.#list.children.length;
    return this.#act(async () => {
      await this.#decode(this.#ended.signal);
      this.#list.children[shown]?.focus();
    });
  }

  /** Shows the next entries, as many at once as the backend decodes. */
  async #decode(signal) {
    const entries = this.#left.splice(0, ENTRIES);
    const buttons = entries.map((entry) => this.#button(entry));
    this.#list.append(...buttons);
    find("entries-more").disabled = !this.#left.length;
    for (let start = 0; start < entries.length; start += this.#model.batch) {
      const part = entries.slice(start, start + this.#model.batch);
      const sets = part.map((entry) => this.#state.codes.with(this.#slot, entry));
      const images = await this.#backend.decode(sets, signal);
      for (const [index, after] of images.entries()) {
        const { image, mean } = change(this.#before, after);
        const button = buttons[start + index];
        paint(button.querySelector("canvas"), image, "");
        button.append(make("span.quiet.amount", `changes ${mean.toFixed(1)}`));
        button.setAttribute("aria-busy", "false");
      }
    }
  }

  #button(entry) {
    const button = make("button.thumb", thumbnail(null), chip(entry, this.#model, "Entry "));
    button.setAttribute("aria-busy", "true");
    button.title = describe(entry, this.#model);
    button.addEventListener("click", () => this.#take(entry));
    return button;
  }

  /** Tries an entry; one that may not be there is reported and the dialog stays. */
  #take(entry) {
    return this.#act(async () => {
      replace(this.#state, this.#slot, entry, this.#model.kind);
      this.#dialog.close();
      this.#choose(entry);
    });
  }
}

/** The link to a state as text, for browsers that do not let the page copy it. */
export function showLink(text) {
  find("link").showModal();
  find("link-text").value = text;
  find("link-text").select();
}
