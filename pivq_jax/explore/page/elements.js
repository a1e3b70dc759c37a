/** Elements of the page. */

/** The element with an id. */
export const find = (id) => document.getElementById(id);

/** Makes an element: `tag.class.other`, with text or children. */
export function make(selector, ...children) {
  const [tag, ...classes] = selector.split(".");
  const element = document.createElement(tag);
  element.classList.add(...classes);
  if (tag === "button") element.type = "button";
  element.append(...children);
  return element;
}

/** A text with links as in Markdown, [text](https://...), as nodes. */
export function linked(text) {
  return text.split(/(\[[^\]]+\]\(https:[^)\s]+\))/).map((part) => {
    const [, name, address] = /^\[(.+)\]\((.+)\)$/.exec(part) ?? [];
    if (!address) return part;
    const link = make("a", name);
    link.href = address;
    return link;
  });
}
