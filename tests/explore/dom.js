// As much of a browser as the page needs in Node; elements come into being when they are asked for.
class FakeElement extends EventTarget {
  children = [];
  style = { setProperty() {} };
  dataset = {};
  #attributes = {};
  #classes = new Set();
  #text = "";

  constructor(tag) {
    super();
    this.tag = tag;
  }

  classList = {
    add: (...names) => names.forEach((name) => this.#classes.add(name)),
    toggle: (name, on) => (on ? this.#classes.add(name) : this.#classes.delete(name)),
    contains: (name) => this.#classes.has(name),
  };

  get textContent() {
    return this.#text + this.children.map((child) => child.textContent ?? child).join("");
  }

  set textContent(text) {
    this.#text = text;
    this.children = [];
  }

  append(...children) {
    for (const child of children) {
      if (!(child instanceof FakeElement)) continue;
      const others = child.parentElement?.children ?? [];
      if (others.includes(child)) others.splice(others.indexOf(child), 1); // an element is in one place
      child.parentElement = this;
    }
    this.children.push(...children);
  }

  prepend(...children) {
    this.children.unshift(...children);
  }

  replaceChildren(...children) {
    this.children = [];
    this.append(...children);
  }

  remove() {}

  setAttribute(name, value) {
    this.#attributes[name] = value;
  }

  getAttribute(name) {
    return this.#attributes[name];
  }

  /** All within that have a tag, or a class: ".name". */
  querySelectorAll(selector) {
    return this.children.flatMap((child) => {
      if (!(child instanceof FakeElement)) return [];
      const fits = selector === child.tag || child.classList.contains(selector.slice(1));
      return [...(fits ? [child] : []), ...child.querySelectorAll(selector)];
    });
  }

  querySelector(selector) {
    return this.querySelectorAll(selector)[0] ?? null;
  }

  showModal() {
    this.open = true;
  }

  close() {
    if (!this.open) return;
    this.open = false;
    this.dispatchEvent(new Event("close"));
  }

  click() {
    this.dispatchEvent(new Event("click"));
  }

  focus() {}

  getContext() {
    return { putImageData: (image) => (this.painted = image) };
  }
}

const elements = new Map();
const element = (id) => {
  if (!elements.has(id)) elements.set(id, new FakeElement("div"));
  return elements.get(id);
};
globalThis.document = {
  getElementById: element,
  createElement: (tag) => new FakeElement(tag),
  querySelector: () => [...elements.values()].find(({ open }) => open) ?? null,
  addEventListener() {},
};
globalThis.IntersectionObserver = class {
  observe() {}
};
globalThis.ImageData = class {
  constructor(width, height = width) {
    Object.assign(this, { width, height, data: new Uint8ClampedArray(4 * width * height) });
  }
};
const page = new EventTarget(); // the window
globalThis.addEventListener = page.addEventListener.bind(page);
globalThis.location = { hash: "" };
globalThis.history = { replaceState: (state, title, hash) => (location.hash = hash) };
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
