/** Files of arrays. */

const TYPES = { F32: Float32Array, I32: Int32Array };

/**
 * Reads a safetensors file: the length of a header, the header in JSON, and the arrays.
 *
 * @param {ArrayBuffer} buffer - the file.
 * @returns {Object<string, {values: Float32Array|Int32Array, shape: number[]}>} the arrays by name.
 */
export function readSafetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  delete header.__metadata__;
  return Object.fromEntries(
    Object.entries(header).map(([name, { dtype, shape, data_offsets: [begin, end] }]) => {
      const bytes = buffer.slice(8 + length + begin, 8 + length + end); // a copy is aligned
      return [name, { values: new TYPES[dtype](bytes), shape }];
    }),
  );
}
