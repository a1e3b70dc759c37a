/** What the headers of image files tell before any pixel is decoded. */

// The signature and the begin of the first chunk, IHDR of 13 bytes.
const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, 0x49, 0x48, 0x44, 0x52];
const RIFF = [0x52, 0x49, 0x46, 0x46];
const WEBP = [0x57, 0x45, 0x42, 0x50];
const JPEG = [0xff, 0xd8, 0xff];
// Markers from 0xc0 to 0xcf begin the frame, but for those of tables and extensions.
const NO_FRAME = [0xc4, 0xc8, 0xcc];

/**
 * The size that a PNG, JPEG or WebP file claims.
 *
 * @param {Uint8Array} bytes - the file, which may be any.
 * @returns {{width: number, height: number} | null} in pixels; null if it is none of them or has none.
 */
export function claimedSize(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (begins(bytes, PNG) && bytes.length >= 24) {
    return { width: view.getUint32(16), height: view.getUint32(20) };
  }
  if (begins(bytes, RIFF) && begins(bytes.subarray(8), WEBP)) return webpSize(bytes, view);
  if (!begins(bytes, JPEG)) return null;
  for (let at = 2; at + 9 <= bytes.length; ) {
    const marker = bytes[at + 1];
    if (bytes[at] !== 0xff || marker === 0xff) {
      at++; // to the next marker
    } else if (marker >= 0xc0 && marker <= 0xcf && !NO_FRAME.includes(marker)) {
      return { width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
    } else {
      at += 2 + view.getUint16(at + 2);
    }
  }
  return null;
}

/** The size of the canvas, which stands in the first chunk; films have none. */
function webpSize(bytes, view) {
  if (bytes.length < 30) return null;
  const wide = (at) => 1 + bytes[at] + 256 * bytes[at + 1] + 65536 * bytes[at + 2];
  const kind = String.fromCharCode(...bytes.subarray(12, 16));
  if (kind === "VP8X") return bytes[20] & 2 ? null : { width: wide(24), height: wide(27) };
  if (kind === "VP8L") {
    const bits = view.getUint32(21, true);
    return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >> 14) & 0x3fff) };
  }
  if (kind !== "VP8 ") return null;
  return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
}

function begins(bytes, magic) {
  return magic.every((byte, i) => bytes[i] === byte);
}
