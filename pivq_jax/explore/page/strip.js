/** The faces made so far, in small. */

import { find, make } from "./elements.js";
import { thumbnail } from "./pictures.js";

const MOST = 24;

export class Strip {
  #list = find("strip");
  #count = 0; // of all that were ever added
  #back;

  /** @param {(state: import("./state.js").State) => void} back - called with the one chosen. */
  constructor(back) {
    this.#back = back;
  }

  /** Adds a state with its image, the newest first, unless one with the same key is there. */
  add(key, state, image) {
    if ([...this.#list.children].some(({ dataset }) => dataset.key === key)) return;
    const button = make("button.made", thumbnail(image));
    button.dataset.key = key;
    this.#count += 1;
    button.setAttribute("aria-label", `Face ${this.#count}, of ${state.a.name} and ${state.b.name}`);
    button.addEventListener("click", () => this.#back(state));
    this.#list.prepend(button);
    this.#list.children[MOST]?.remove();
    find("made").hidden = false;
  }
}
