/** The code sets as columns of chips: each code of A above its partner in B. */

import { LEAST } from "./effects.js";
import { find, make } from "./elements.js";
import { isColour, nameOf } from "./names.js";
import { exchangeOrder } from "./state.js";

/** Share of the images with an entry that must show a value for the entry to have its name. */
const RIGHT = 0.9;

/** A line about an entry. */
export function describe(code, model) {
  const { value, right, usual, share, group } = model.entries[code];
  const percent = (part) => `${Math.round(100 * part)}%`;
  let told = group >= 0 ? model.groups[group] : "tells no factor beyond chance";
  if (value) told += `: ${nameOf(value)} in ${percent(right)} of images with it, ${percent(usual)} of all`;
  const often = model.trainingImages ? `; in ${(100 * share).toFixed(1)}% of training images` : "";
  return `Code ${code}: ${told}${often}.`;
}

/** A chip of a code; its colour is that of its group. */
export function chip(code, model, prefix = "") {
  const { group, value, right } = model.entries[code];
  const named = value && right >= RIGHT;
  const element = make("span.chip", make("span.unseen", prefix), make("span.code", String(code)));
  if (named && isColour(value)) {
    const swatch = make("span.swatch");
    swatch.style.backgroundColor = value;
    element.append(swatch);
  }
  colour(element, group, model);
  const tells = named
    ? make("span.tells", value === "none" ? `no ${model.groups[group]}` : nameOf(value))
    : make("span.tells.unsure", model.groups[group] ?? "no factor");
  element.append(" ", tells);
  return element;
}

function colour(element, group, model) {
  if (group >= 0) element.style.setProperty("--hue", (25 + (360 * group) / model.groups.length) % 360);
  else element.classList.add("plain");
}

export class Slots {
  #model;
  #on;
  #pairs = null;
  #parts = new Map(); // by slot: {box, pair, chips, amount}
  #places = [find("slots"), find("common"), find("faint")];
  #ordered = null; // the pairs whose columns are in the order of effects
  #about = find("about-code");
  #told = null; // the slot that it is about

  /**
   * @param {import("./backend.js").Model} model
   * @param {{exchange: (slot: number) => void, replace: (slot: number) => void}} on
   */
  constructor(model, on) {
    this.#model = model;
    this.#on = on;
    for (const place of this.#places) {
      place.addEventListener("keydown", (event) => this.#move(event, place));
      place.addEventListener("focusin", (event) => this.#focus(event.target, place));
      place.addEventListener("pointerover", (event) => this.#tell(event.target));
    }
  }

  /** @param {import("./state.js").State} state */
  show(state) {
    if (state.pairs !== this.#pairs) this.#build(state.pairs);
    for (const [slot, { box, pair, chips }] of this.#parts) {
      const code = state.codes[slot];
      const own = code !== state.pairs.a[slot] && code !== state.pairs.b[slot];
      chips.own?.remove();
      chips.own = own ? chip(code, this.#model, "By hand: ") : null;
      box.dataset.code = code;
      box.classList.toggle("by-hand", own);
      mark(chips.a, code === state.pairs.a[slot]);
      if (chips.b) {
        mark(chips.b, code === state.pairs.b[slot]);
        pair.setAttribute("aria-pressed", String(code === state.pairs.b[slot]));
      }
      if (own) {
        mark(chips.own, true);
        pair.append(chips.own);
      }
      box.querySelector(".replace")?.setAttribute("aria-label", `Replace ${code}`);
    }
    if (this.#told) this.#tell(this.#told);
  }

  #build(pairs) {
    this.#pairs = pairs;
    this.#parts.clear();
    const common = [...pairs.a.keys()].filter((slot) => pairs.a[slot] === pairs.b[slot]);
    const columns = [exchangeOrder(pairs), common, []];
    for (const [index, place] of this.#places.entries()) {
      place.replaceChildren(...columns[index].map((slot) => this.#column(slot, pairs)));
      oneStop(place);
    }
    find("faint-part").hidden = true;
    find("common-part").hidden = !common.length;
    this.#about.textContent = "";
    this.#told = null;
    this.#legend(new Set([...pairs.a, ...pairs.b].map((code) => this.#model.entries[code].group)));
  }

  /**
   * Shows what each exchange would change now. The first time, columns are put in the order of
   * effects, and those without one out of the way; later, a column stays where it is, unless it was
   * there and has an effect now.
   *
   * @param {Map<number, number>} effects - see `Effects.find`.
   */
  measure(effects) {
    const [slots, , faint] = this.#places;
    const focused = document.activeElement;
    const seen = (slot) => effects.get(slot) >= LEAST;
    if (this.#ordered !== this.#pairs) {
      this.#ordered = this.#pairs;
      const order = exchangeOrder(this.#pairs).sort((one, other) => effects.get(other) - effects.get(one));
      const place = (slot) => (seen(slot) || !order.some(seen) ? slots : faint);
      for (const slot of order) place(slot).append(this.#parts.get(slot).box);
    } else {
      for (const { box } of this.#parts.values()) {
        if (box.parentElement === faint && seen(Number(box.dataset.slot))) slots.append(box);
      }
    }
    for (const [slot, { amount }] of this.#parts) {
      if (amount) amount.textContent = effects.has(slot) ? percent(effects.get(slot)) : "";
    }
    const count = faint.children.length;
    find("faint-part").hidden = !count;
    find("title-faint").textContent =
      `${count} ${count === 1 ? "code changes" : "codes change"} nothing visible here`;
    oneStop(slots);
    oneStop(faint);
    if (document.activeElement !== focused) focused.focus(); // moving a column takes it away
  }

  #column(slot, pairs) {
    const model = this.#model;
    const differs = pairs.a[slot] !== pairs.b[slot];
    const chips = { a: chip(pairs.a[slot], model, differs ? "A: " : "") };
    const pair = make("button.pair", chips.a);
    const box = make("div.slot", pair);
    let amount = null; // what its exchange would change
    if (differs) {
      chips.b = chip(pairs.b[slot], model, "B: ");
      pair.append(chips.b);
      pair.addEventListener("click", () => this.#on.exchange(slot));
      const replace = make("button.replace", "Replace");
      replace.addEventListener("click", () => this.#on.replace(slot));
      amount = make("span.amount.quiet");
      box.append(amount, replace);
    } else {
      pair.prepend(make("span.unseen", "Replace "));
      pair.addEventListener("click", () => this.#on.replace(slot));
    }
    this.#parts.set(slot, { box, pair, chips, amount });
    box.dataset.slot = slot;
    return box;
  }

  #legend(groups) {
    const names = [...groups].sort((one, other) => one - other);
    const items = names.filter((group) => group >= 0).map((group) => [group, this.#model.groups[group]]);
    if (groups.has(-1)) items.push([-1, "no factor beyond chance"]);
    const legend = find("legend");
    legend.replaceChildren(
      ...items.map(([group, name]) => {
        const dot = make("span.dot");
        colour(dot, group, this.#model);
        return make("li", dot, name);
      }),
    );
  }

  /** Arrow keys go from button to button; the tab key leaves them. */
  #move(event, place) {
    const button = event.target.closest("button");
    if (!button || event.ctrlKey || event.altKey || event.metaKey) return;
    const alike = button.classList.contains("replace") ? ".replace" : ".pair";
    const all = [...place.querySelectorAll(alike)];
    const box = button.parentElement;
    const index = all.indexOf(button);
    const next = {
      ArrowRight: all[index + 1],
      ArrowLeft: all[index - 1],
      Home: all[0],
      End: all.at(-1),
      ArrowDown: box.querySelector(".replace"),
      ArrowUp: box.querySelector(".pair"),
    }[event.key];
    if (next === undefined || next === null) return;
    event.preventDefault();
    next.focus();
  }

  #focus(target, place) {
    const button = target.closest("button");
    if (!button) return;
    oneStop(place, button);
    this.#tell(button);
  }

  #tell(target) {
    const box = target.closest(".slot");
    if (!box) return;
    this.#told = box;
    const slot = Number(box.dataset.slot);
    const codes = [this.#pairs.a[slot], this.#pairs.b[slot], Number(box.dataset.code)];
    this.#about.textContent = [...new Set(codes)].map((code) => describe(code, this.#model)).join(" ");
  }
}

/** Makes one of the buttons of a place a stop of the tab key, the others of arrow keys. */
function oneStop(place, stop = place.querySelector("button")) {
  for (const button of place.querySelectorAll("button")) button.tabIndex = button === stop ? 0 : -1;
}

/** A share of the image. */
function percent(share) {
  if (share < LEAST) return "no change";
  return share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`;
}

function mark(element, present) {
  element.classList.toggle("present", present);
  if (!present) element.querySelector(".state")?.remove();
  else if (!element.querySelector(".state")) element.append(make("span.unseen.state", ", in the image "));
}
