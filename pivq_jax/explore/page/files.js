/** Files that a person gives. */

import { BackendError } from "./backend.js";
import { find } from "./elements.js";

/** Lets a person pick a file. */
export function pick(accept, use) {
  const input = find("file");
  input.accept = accept;
  input.value = "";
  input.onchange = () => input.files.length && use(input.files[0]);
  input.click();
}

/**
 * Takes files that are dropped onto the page: one for B onto B, any other for A; two for both.
 *
 * @param {(files: [string, File][]) => void} use - called with the sides and their files.
 */
export function listenForDrops(use) {
  const over = (shown) => (find("drop").hidden = !shown);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(event.dataTransfer.types.includes("Files"));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over(false);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    const files = [...event.dataTransfer.files].slice(0, 2);
    const first = event.target.closest?.("#side-b") ? "b" : "a";
    const sides = files.length > 1 ? ["a", "b"] : [first];
    use(files.map((file, index) => [sides[index], file]));
  });
}

/** Waits for what becomes of a file, whose name errors then have. */
export async function named(file, result) {
  try {
    return await result;
  } catch (error) {
    if (error instanceof BackendError) error.message = `${file.name}: ${error.message}`;
    throw error;
  }
}
