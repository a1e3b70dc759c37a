/** Names of values of factors for people: "longBeard" is a long beard, "#ec4899" is pink. */

/** Those of the drawings, which are common enough for any; a colour has the name of the nearest. */
const COLOURS = {
  black: "#151613",
  "dark blue": "#0b3286",
  blue: "#2563eb",
  "dark grey": "#545454",
  grey: "#a0a0a0",
  white: "#e8e9e6",
  green: "#147f3c",
  orange: "#f97316",
  pink: "#ec4899",
  purple: "#731ac3",
  red: "#b11f1f",
  yellow: "#eab308",
  "black brown": "#2c1b18",
  "dark brown": "#5c3829",
  brown: "#724133",
  copper: "#a55728",
  "light brown": "#a36b4f",
  "golden brown": "#b58143",
  tan: "#b98e6a",
  rose: "#c68e7a",
  blond: "#d6b370",
  light: "#f1c3a5",
};

/** Whether the value of a factor is a colour. */
export const isColour = (value) => /^#[0-9a-f]{6}$/i.test(value);

/** The name of a value for people. */
export function nameOf(value) {
  if (!isColour(value)) {
    const words = value.replaceAll("_", " ").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
    return words.replace(/^t shirt$/, "T-shirt");
  }
  const apart = (other) =>
    [1, 3, 5].reduce((sum, at) => sum + (channel(value, at) - channel(other, at)) ** 2, 0);
  const names = Object.keys(COLOURS);
  return names.reduce((one, name) => (apart(COLOURS[name]) < apart(COLOURS[one]) ? name : one));
}

function channel(colour, at) {
  return parseInt(colour.slice(at, at + 2), 16);
}
