/** Images on the page. */

/** Grey levels of change that are shown in full. */
const CLEAR = 24;
const FAINT = 0.2;

/** Paints an image into a canvas. */
export function paint(canvas, image, label) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width;
    canvas.height = image.height;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.setAttribute("aria-label", label);
}

/** A canvas for an image that its button names. */
export function thumbnail(image) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  if (image) paint(canvas, image, "");
  return canvas;
}

/** The second image, faint where it is equal to the first, and the mean change in grey levels. */
export function change(before, after) {
  const image = new ImageData(after.width, after.height);
  let sum = 0;
  for (let at = 0; at < after.data.length; at += 4) {
    let most = 0;
    for (let channel = at; channel < at + 3; channel++) {
      image.data[channel] = after.data[channel];
      const difference = Math.abs(after.data[channel] - before.data[channel]);
      sum += difference;
      most = Math.max(most, difference);
    }
    image.data[at + 3] = 255 * (FAINT + (1 - FAINT) * Math.min(1, most / CLEAR));
  }
  return { image, mean: sum / (0.75 * after.data.length) };
}

/** Grey levels, of 255, from which on a change of a pixel is seen without looking for it. */
const SEEN = 30;

/** The share of pixels of which a channel changes by more than that, 0 to 1. */
export function visibleChange(before, after) {
  let count = 0;
  for (let at = 0; at < after.data.length; at += 4) {
    const differs = (channel) => Math.abs(after.data[channel] - before.data[channel]) > SEEN;
    if (differs(at) || differs(at + 1) || differs(at + 2)) count += 1;
  }
  return count / (after.data.length / 4);
}

/** The peak signal-to-noise ratio of two images in dB. */
export function psnr(one, other) {
  let sum = 0;
  for (let at = 0; at < one.data.length; at++) sum += (one.data[at] - other.data[at]) ** 2; // opaque
  return 10 * Math.log10(255 ** 2 / (sum / (0.75 * one.data.length)));
}

/** Saves a file under a name. */
export function download(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
