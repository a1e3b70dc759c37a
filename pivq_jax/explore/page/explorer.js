/** The page: what a person does, and what is shown. */

import { BackendError } from "./backend.js";
import { Entries, Examples, showLink } from "./dialogs.js";
import { Effects } from "./effects.js";
import { find, linked } from "./elements.js";
import { Factors } from "./factors.js";
import { listenForDrops, named, pick } from "./files.js";
import { download, paint, psnr, thumbnail } from "./pictures.js";
import { Slots } from "./slots.js";
import {
  countDiffering,
  exchange,
  exchangeOrder,
  fromFragment,
  History,
  interpolate,
  replace,
  toFragment,
} from "./state.js";
import { Strip } from "./strip.js";

const SETTLED = 200; // milliseconds without a change, until link, effects and nearest image follow
const ASK_AGAIN = 1_000; // milliseconds, how far the work in the background is
const IMAGES = "image/png,image/jpeg,image/webp";
const IN_SIGHT = 0.9; // of the face: below that, it is shown again in a corner
const FAR_BELOW = 6; // dB: an image whose codes hold so much less of it is unlike the training images
const CODES = ".pivq";

/** Starts the page with a `Backend`, see backend.js. */
export async function explore(backend) {
  try {
    const model = await backend.model();
    find("loading").hidden = true;
    await new Explorer(backend, model).start();
  } catch (error) {
    find("loading").hidden = false;
    find("loading-bar").hidden = true;
    find("loading-text").textContent = messageOf(error);
  }
}

class Explorer {
  #backend;
  #model;
  #history = new History();
  #slots;
  #examples;
  #entries;
  #factors;
  #turning = Promise.resolve(); // one after another
  #decoded = { codes: null, image: null }; // the last state that was
  #decoding = null; // while it goes on
  #settling = 0;
  #following = new AbortController(); // of what follows a state that stays
  #effects;
  #paths = new WeakMap(); // of the slider, by pairs
  #strip = new Strip((state) => this.#change(state));
  #link = ""; // the last that was opened

  constructor(backend, model) {
    this.#backend = backend;
    this.#model = model;
    const act = (work) => this.#act(work);
    this.#slots = new Slots(model, {
      exchange: (slot) => this.#exchange(slot),
      replace: (slot) => this.#replace(slot),
    });
    this.#examples = new Examples(backend, model, act);
    this.#entries = new Entries(backend, model, act);
    this.#effects = new Effects(backend, model);
    this.#factors = new Factors(model, (factor, value) => this.#turn(factor, value));
    this.#listen();
  }

  async start() {
    const { title, numCodes, codebookSize, imageSize, kind } = this.#model;
    find("model").textContent =
      `${title}: ${numCodes} of ${codebookSize} codes (${kind}), ${imageSize} × ${imageSize} pixels`;
    find("credit").hidden = !this.#model.credit;
    find("credit").replaceChildren(...linked(this.#model.credit));
    find("copy").hidden = !this.#model.trainingImages;
    find("new-face").hidden = !this.#model.trainingImages;
    find("prior-face").hidden = !this.#model.prior;
    for (const side of ["a", "b"]) find(`choose-${side}`).hidden = !this.#model.examples;
    this.#try(() => this.#watch());
    find("explorer").hidden = false;
    await this.#openLink();
    if (!this.#history.present) await this.#try(() => this.#begin());
  }

  /** Shows something to begin with, if there is anything. */
  async #begin() {
    const [first, second] = this.#model.opening;
    if (second !== undefined) {
      const [a, b] = [await this.#example(first), await this.#example(second)];
      await this.#pairUp(() => ({ a, b }));
    } else if (this.#model.trainingImages > 1) {
      await this.#newFace();
    }
  }

  /** Shows how far the work beside the page is; takes what the model has then. */
  async #watch() {
    let waited = false;
    for (;;) {
      const { text, fraction } = await this.#backend.progress();
      find("background").hidden = fraction === 1;
      find("background-bar").value = fraction;
      find("background-text").textContent = `In the background: ${text}`;
      if (fraction === 1) break;
      waited = true;
      await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN));
    }
    if (!waited) return;
    Object.assign(this.#model, await this.#backend.model());
    if (this.#history.present) this.#follow(); // more is known of it
  }

  #listen() {
    const on = (id, event, act) => find(id).addEventListener(event, act);
    new IntersectionObserver(
      ([face]) => (find("image-beside").hidden = face.intersectionRatio >= IN_SIGHT),
      { threshold: IN_SIGHT },
    ).observe(find("image"));
    on("undo", "click", () => this.#go(-1));
    on("redo", "click", () => this.#go(1));
    on("new-face", "click", () => this.#act(() => this.#newFace()));
    on("prior-face", "click", () =>
      this.#act(async () => this.#setSide("a", await this.#backend.draw())),
    );
    on("open", "click", () => pick(CODES, (file) => this.#act(() => this.#openCodes(file))));
    on("save-codes", "click", () => this.#act(() => this.#saveCodes()));
    on("save-image", "click", () => this.#act(() => this.#saveImage()));
    on("copy-link", "click", () => this.#copyLink());
    on("alert-close", "click", () => (find("alert").hidden = true));
    for (const side of ["a", "b"]) {
      on(`choose-${side}`, "click", () =>
        this.#examples.open(side.toUpperCase(), (index) =>
          this.#act(async () => this.#setSide(side, await this.#example(index))),
        ),
      );
      const open = (file) => this.#act(() => this.#openImage(side, file));
      on(`file-${side}`, "click", () => pick(IMAGES, open));
    }
    on("slider", "input", () => {
      const { present } = this.#history;
      const { order, stops } = this.#paths.get(present.pairs);
      const slots = order.slice(0, stops[find("slider").valueAsNumber]);
      this.#change(interpolate(present, slots), "slider");
    });
    on("slider", "change", () => this.#history.end());
    document.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("hashchange", () => this.#openLink());
    listenForDrops((files) =>
      this.#act(async () => {
        for (const [side, file] of files) {
          if (file.name.endsWith(CODES)) await this.#openCodes(file);
          else await this.#openImage(side, file);
        }
      }),
    );
  }

  #key(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || document.querySelector("dialog[open]")) return;
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) this.#go(-1);
    else if (key === "y" || key === "z") this.#go(1);
    else return;
    event.preventDefault();
  }

  /** Does what a person asked for; what failed before is then no longer of interest. */
  #act(work) {
    find("alert").hidden = true;
    return this.#try(work);
  }

  /** Does something that may fail; shows why it did. */
  async #try(work) {
    try {
      await work();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof BackendError)) console.error(error);
      this.#warn(messageOf(error));
    }
  }

  #warn(text) {
    // All beside an open dialog is out of reach.
    (document.querySelector("dialog[open]") ?? find("alert-place")).prepend(find("alert"));
    find("alert-text").textContent = text;
    find("alert").hidden = false;
  }

  #say(text) {
    find("status").textContent = text;
  }

  async #example(index) {
    return { ...(await this.#backend.example(index)), example: index };
  }

  async #openImage(side, file) {
    const picture = await named(file, this.#backend.encode(file, file.name));
    await this.#setSide(side, picture);
    const [decoded] = await this.#backend.decode([picture.codes]);
    if (psnr(picture.image, decoded) > this.#model.psnr - FAR_BELOW) return;
    this.#warn(`${file.name} is unlike the training images: its codes hold little of it.`);
  }

  async #openCodes(file) {
    const codes = await named(file, this.#backend.readCodes(file));
    const [image] = await this.#backend.decode([codes]);
    await this.#setSide("a", { name: file.name, codes, image });
  }

  /** Takes an image for A or B; the first of all is both. */
  async #setSide(side, picture) {
    const both = { a: picture, b: picture };
    await this.#pairUp(() => ({ ...both, ...this.#history.present, [side]: picture }));
  }

  /** Pairs A and B, and again if another image is chosen for one of them meanwhile. */
  async #pairUp(sides) {
    let a, b, pairs;
    do {
      ({ a, b } = sides());
      pairs = await this.#backend.pair(a.codes, b.codes);
    } while (sides().a !== a || sides().b !== b);
    this.#change({ a, b, pairs, codes: [...pairs.a] }); // A is decoded
    this.#say(`A is ${a.name}, B is ${b.name}.`);
  }

  async #newFace() {
    const { a, b, pairs, codes } = await this.#backend.recombine();
    this.#change({ a, b, pairs, codes });
    this.#say(`A new face, of ${a.name} and ${b.name}.`);
  }

  #exchange(slot) {
    this.#act(async () => {
      const before = this.#history.present.codes[slot];
      this.#change(exchange(this.#history.present, slot, this.#model.kind));
      this.#say(`Code ${before} exchanged for ${this.#history.present.codes[slot]}.`);
    });
  }

  #replace(slot) {
    const state = this.#history.present;
    this.#entries.open(state, slot, () => this.#imageOf(state), (code) => {
      this.#change(replace(this.#history.present, slot, code, this.#model.kind));
      this.#say(`Code ${code} put in.`);
    });
  }

  /** Turns a factor; further choices of the same factor begin with the face before the first. */
  #turn(factor, value) {
    const gesture = `factor ${factor}`;
    const work = async () => {
      let values;
      try {
        let present, before, codes;
        do {
          present = this.#history.present;
          before = this.#history.before(gesture);
          codes = await this.#backend.edit(before.codes, factor, value);
          values = await this.#backend.readFactors(codes);
        } while (present !== this.#history.present);
        const replaced = countDiffering(codes, before.codes);
        if (countDiffering(codes, present.codes)) this.#change({ ...before, codes }, gesture);
        const text = this.#factors.outcome(factor, value, values[factor], replaced);
        this.#factors.tell(text);
        this.#say(text);
      } finally {
        this.#factors.show(values);
      }
    };
    this.#turning = this.#turning.then(() => this.#act(work));
  }

  /** Undoes (-1), or does again (1). */
  #go(step) {
    if (!this.#history.has(step)) return;
    this.#history.go(step);
    this.#show();
    this.#say(step < 0 ? "Undone." : "Done again.");
  }

  #change(state, gesture) {
    this.#history.push(state, gesture);
    this.#show();
  }

  /** Shows the present state; the decoded image follows. */
  #show() {
    const { a, b, pairs, codes } = this.#history.present;
    paint(find("image-a"), a.image, `A: ${a.name}`);
    paint(find("image-b"), b.image, `B: ${b.name}`);
    find("name-a").textContent = a.name;
    find("name-b").textContent = b.name;
    this.#slots.show(this.#history.present);
    this.#factors.tell();
    this.#showSlider();
    for (const id of ["save-codes", "save-image", "copy-link"]) find(id).disabled = false;
    find("undo").disabled = !this.#history.has(-1);
    find("redo").disabled = !this.#history.has(1);
    this.#entries.close(); // a choice in it would be for the state before
    this.#follow();
  }

  /** Begins with what follows a new state. */
  #follow() {
    this.#decode();
    this.#following.abort();
    find("codes").setAttribute("aria-busy", "true");
    // It shows what was most like an earlier state.
    find("copy").setAttribute("aria-busy", String(this.#model.trainingImages > 0));
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.#settle(), SETTLED);
  }

  /** Shows how many pairs are exchanged, and the place on the way from A to B once it is known. */
  #showSlider() {
    const { pairs, codes } = this.#history.present;
    const differing = exchangeOrder(pairs);
    const count = differing.filter((slot) => codes[slot] === pairs.b[slot]).length;
    const text = `${count} of ${differing.length} pairs exchanged`;
    const { stops } = this.#paths.get(pairs) ?? { stops: [0] };
    const slider = find("slider");
    slider.max = stops.length - 1;
    slider.value = stops.findLastIndex((stop) => stop <= count);
    slider.disabled = stops.length < 2;
    slider.setAttribute("aria-valuetext", text);
    find("exchanged").textContent = text;
  }

  /** Decodes the present state; what changes meanwhile is decoded next, and the rest left out. */
  #decode() {
    this.#decoding ??= this.#try(async () => {
      find("result").setAttribute("aria-busy", "true");
      let codes = null;
      try {
        while (codes !== this.#history.present.codes) {
          codes = this.#history.present.codes;
          const [image] = await this.#backend.decode([codes]);
          this.#decoded = { codes, image };
          paint(find("image"), image, `Decoded: ${find("exchanged").textContent}`);
          paint(find("image-beside"), image, "");
          if (!this.#model.factors.length) continue;
          this.#factors.show(await this.#backend.readFactors(codes));
        }
      } finally {
        this.#decoding = null;
        find("result").setAttribute("aria-busy", "false");
        // After a failure, a newer state has not been asked for.
        if (codes !== this.#history.present.codes) this.#decode();
      }
    });
  }

  /** The image of a state, which may not be the one on the page yet. */
  async #imageOf({ codes }) {
    await this.#decoding;
    if (this.#decoded.codes === codes) return this.#decoded.image;
    const [image] = await this.#backend.decode([codes]);
    return image;
  }

  /** Once a state stays: its link, what each exchange changes, and the training image most like it. */
  async #settle() {
    const state = this.#history.present;
    try {
      history.replaceState(null, "", `#${toFragment(state, this.#model)}`);
    } catch {
      // Browsers limit how often: a later state brings the link up to date.
    }
    this.#following = new AbortController();
    const { signal } = this.#following;
    await this.#try(async () => {
      this.#slots.measure(await this.#effects.find(state, signal));
      if (!this.#paths.has(state.pairs)) {
        this.#paths.set(state.pairs, await this.#effects.findPath(state.pairs, signal));
        this.#showSlider();
      }
      find("codes").setAttribute("aria-busy", "false");
    });
    if (signal.aborted) return;
    await this.#try(async () => {
      this.#strip.add(toFragment(state, this.#model), state, await this.#imageOf(state));
    });
    if (!this.#model.trainingImages || signal.aborted) return;
    await this.#try(async () => {
      const found = await this.#backend.nearest(state.codes, signal);
      if (state !== this.#history.present) return;
      const { picture, difference, searched } = found;
      paint(find("image-copy"), picture.image, `Nearest training image: ${picture.name}`);
      find("name-copy").textContent = picture.name;
      find("about-copy").textContent =
        `${shared(state.codes, picture.codes)} of ${state.codes.length} codes in common. Pixels differ` +
        ` by ${difference.toFixed(1)} of 255. ${searched.toLocaleString("en")} of` +
        ` ${this.#model.trainingImages.toLocaleString("en")} were searched.`;
      find("copy").setAttribute("aria-busy", "false");
    });
  }

  async #saveImage() {
    const canvas = thumbnail(await this.#imageOf(this.#history.present));
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    download(blob, "face.png");
  }

  async #saveCodes() {
    const { name, file } = await this.#backend.writeCodes(this.#history.present.codes);
    download(file, name);
  }

  async #copyLink() {
    const link = new URL(location.href);
    link.hash = toFragment(this.#history.present, this.#model);
    try {
      await navigator.clipboard.writeText(link.href);
      this.#say("Link copied.");
      find("copy-link").textContent = "Copied";
      setTimeout(() => (find("copy-link").textContent = "Copy link"), 2_000);
    } catch {
      showLink(link.href);
    }
  }

  async #openLink() {
    const link = location.hash;
    if (link.length < 2) return;
    this.#link = link;
    await this.#act(async () => {
      const { present } = this.#history;
      const state = await fromFragment(link.slice(1), this.#model, this.#backend);
      // What a person has done or opened meanwhile is what is wanted.
      if (link === this.#link && present === this.#history.present) this.#change(state);
    });
  }
}

/** How many codes two sets share, copies counted. */
function shared(one, other) {
  const left = [...other];
  return one.filter((code) => {
    const place = left.indexOf(code);
    if (place >= 0) left.splice(place, 1);
    return place >= 0;
  }).length;
}

function messageOf(error) {
  return error instanceof BackendError ? error.message : `Something failed: ${error.message}`;
}
