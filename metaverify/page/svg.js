// Elements, numbers and scales.  All text goes in as text: names in a policy file may be anything.

/** An element; `attributes` that are functions are listeners, null or false leaves an attribute out. */
function make(space, name, attributes, children) {
  const element = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}
const el = (name, attributes, ...children) => make("http://www.w3.org/1999/xhtml", name, attributes, children);
const svg = (name, attributes, ...children) => make("http://www.w3.org/2000/svg", name, attributes, children);
const byId = (id) => document.getElementById(id);

/** A name as it is shown: what cannot be seen or turns the line around is spelt out, right-to-left names stay apart. */
function shown(name) {
  const plain = String(name).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}]/gu, (letter) => {
    return `\\u{${letter.codePointAt(0).toString(16)}}`;
  });
  const apart = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u.test(plain);
  return apart ? `\u2068${plain}\u2069` : plain;
}

/** A name in a table, broken where it is long. */
const nameOf = (text) => el("span", { class: "name" }, text);

// ----------------------------------------------------------------------------------------------------- numbers

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const isText = (value) => typeof value === "string";
const dash = "–";

/** An amount of cost to so many significant digits. */
function amount(value, digits = 4) {
  if (!isNumber(value)) return dash;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(digits - 2).replace("e", " e");
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 8, useGrouping: size >= 1e4 });
}
const quality = (value) => (isNumber(value) ? value.toFixed(4) : dash);
const percent = (value) => (isNumber(value) ? `${(100 * value).toFixed(1)} %` : dash);
const count = (value) => (isNumber(value) ? value.toLocaleString("en") : dash);
const cutText = (value) => String(Number(value.toFixed(6)));

/** A difference in hundredths with its sign; nothing is +0. */
function signed(value, places) {
  if (!isNumber(value)) return dash;
  const text = Math.abs(100 * value).toFixed(places);
  return (value < 0 && Number(text) !== 0 ? "−" : "+") + text;
}
const points = (value) => signed(value, 2);
const ratio = (value) => (isNumber(value) ? `${signed(value, 1)} %` : dash);
const decimal = (value, places = 3) => (isNumber(value) ? value.toFixed(places).replace("-", "−") : dash);
const between = (low, high, form) => (isNumber(low) && isNumber(high) ? `${form(low)} to ${form(high)}` : "");

// ------------------------------------------------------------------------------------------------------ scales

/** From [low, high] to pixels; in logarithms where the range is wide. */
function scaleOf(low, high, from, to, log = false) {
  const turn = log ? Math.log : (value) => value;
  const back = log ? Math.exp : (value) => value;
  const [start, width] = [turn(low), turn(high) - turn(low) || 1];
  const scale = (value) => from + ((turn(value) - start) / width) * (to - from);
  scale.invert = (pixel) => back(start + ((pixel - from) / (to - from)) * width);
  scale.log = log;
  scale.ends = [low, high];
  return scale;
}

/** Round numbers across a scale, at most so many. */
function ticksOf(scale, most) {
  const [low, high] = scale.ends;
  if (scale.log) {
    for (const steps of [[1, 2, 5], [1]]) {
      const ticks = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
        ticks.push(...steps.map((step) => Number(`${step}e${power}`)));
      }
      const inside = ticks.filter((tick) => tick >= low && tick <= high);
      if (inside.length <= most || steps.length === 1) {
        const every = Math.ceil(inside.length / most);
        return inside.filter((_, at) => at % every === 0);
      }
    }
  }
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((part) => part * power).find((part) => part >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const ticks = [];
  for (let at = first; at * step <= high + step * 1e-9; at += 1) ticks.push(Number((at * step).toPrecision(12)));
  return ticks;
}

const ruler = document.createElement("canvas").getContext("2d");

/** The text, cut so that it is at most so wide. */
function fitted(text, width, font = "400 13px sans-serif") {
  ruler.font = font;
  if (ruler.measureText(text).width <= width) return text;
  const letters = [...text];
  while (letters.length > 1 && ruler.measureText(`${letters.join("")}…`).width > width) letters.pop();
  return `${letters.join("")}…`;
}
const fontOf = (element, weight = 400) => `${weight} 13px ${getComputedStyle(element).fontFamily}`;

/** Where `value` would be on the line through points [x, y]; the ends go on flat. */
function along(line, value) {
  if (line.length === 0) return null;
  const after = line.findIndex(([x]) => x >= value);
  if (after === -1) return line.at(-1)[1];
  if (after === 0) return line[0][1];
  const [[x0, y0], [x1, y1]] = [line[after - 1], line[after]];
  return y0 + ((value - x0) / (x1 - x0)) * (y1 - y0);
}
