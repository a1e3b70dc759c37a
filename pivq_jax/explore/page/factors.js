/** The labelled factors of the image in the middle: a select for each, which shows its value. */

import { find, make } from "./elements.js";
import { isColour, nameOf } from "./names.js";

const HINT = "As the image shows. Choose another value to edit.";
const UNCLEAR = "unclear";

export class Factors {
  #model;
  #values = null;
  #parts; // of each factor

  /**
   * @param {import("./backend.js").Model} model
   * @param {(factor: number, value: number) => void} turn - called with the value that is chosen.
   */
  constructor(model, turn) {
    this.#model = model;
    this.#parts = model.factors.map(({ name, values, unseen }, factor) => {
      const unclear = option(UNCLEAR);
      unclear.hidden = unclear.disabled = true; // shown, never chosen
      const select = make("select", unclear, ...values.map(option));
      for (const value of unseen) select.options[value + 1].disabled = true;
      select.selectedIndex = -1;
      select.disabled = true; // until there is a value
      select.addEventListener("change", () => turn(factor, select.selectedIndex - 1));
      const swatch = make("span.swatch");
      swatch.hidden = true;
      const label = make("label", name, swatch);
      label.htmlFor = select.id = `factor-${factor}`;
      return { select, swatch, box: make("div.factor", label, select) };
    });
    find("factor-list").replaceChildren(...this.#parts.map(({ box }) => box));
    find("factors").hidden = !model.factors.length;
    this.tell();
  }

  /** Shows the values of the factors; those shown last if there are none given. */
  show(values = this.#values) {
    this.#values = values;
    for (const [factor, { select, swatch }] of this.#parts.entries()) {
      const value = this.#model.factors[factor].values[values[factor]];
      select.disabled = false;
      select.selectedIndex = values[factor] + 1;
      swatch.hidden = !isColour(value);
      if (isColour(value)) swatch.style.backgroundColor = value;
    }
  }

  /** Shows what became of a choice; without a text, what a person may do. */
  tell(text = HINT) {
    find("turned").textContent = text;
  }

  /** What became of a choice: `found` is the value that is shown now, -1 if none is sure. */
  outcome(factor, asked, found, count) {
    const { name, values } = this.#model.factors[factor];
    const but = found === asked ? "" : `, not ${nameOf(values[asked])}`;
    const shown = found < 0 ? UNCLEAR : nameOf(values[found]);
    const codes = count ? `${count} ${count > 1 ? "codes" : "code"}` : "no code";
    return `The image shows ${name}: ${shown}${but}. Replaced: ${codes}.`;
  }
}

function option(value) {
  const element = make("option", nameOf(value));
  if (isColour(value)) {
    element.style.backgroundColor = value;
    element.style.color = isDark(value) ? "white" : "black";
  }
  return element;
}

/** Whether white is easier to read on a colour than black, by their contrast (WCAG). */
function isDark(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => (parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.18;
}
