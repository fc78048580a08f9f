// Charts as SVG: lines or stacked areas over time, bars over an index. Data in, an element out.
const NS = "http://www.w3.org/2000/svg";

export function el(kind, attributes = {}, ...children) {
  const made = document.createElementNS(NS, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value.toPrecision(size >= 10 ? 3 : 2);
}

function ceiling(most) {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return power * [1, 2, 5, 10].find((step) => step * power >= most);
}

/**
 * series: [{name, color, values}], values[i] belongs to the i-th of `count` equal steps, null = gap.
 * stacked: areas upon each other. labels: texts of the left and the right end.
 */
export function chart({ series, count, stacked = false, labels = ["", ""], title }) {
  const [w, h, left, bottom, top] = [420, 130, 36, 16, 6];
  const sums = Array.from({ length: count }, (_, i) => series.reduce((sum, s) => sum + (s.values[i] ?? 0), 0));
  const most = ceiling(stacked ? Math.max(0, ...sums) : Math.max(0, ...series.flatMap((s) => s.values.map((v) => v ?? 0))));
  const x = (i) => left + ((w - left - 4) * i) / Math.max(1, count - 1);
  const y = (v) => h - bottom - ((h - bottom - top) * v) / most;
  const svg = el("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": title });
  for (const part of [0, 0.5, 1]) {
    const at = y(most * part);
    svg.append(el("line", { class: "grid", x1: left, x2: w - 4, y1: at, y2: at }));
    svg.append(el("text", { x: left - 4, y: at + 3, "text-anchor": "end" }, number(most * part)));
  }
  svg.append(el("text", { x: left, y: h - 3 }, labels[0]), el("text", { x: w - 4, y: h - 3, "text-anchor": "end" }, labels[1]));
  let base = new Array(count).fill(0);
  for (const { values, color } of series) {
    if (stacked) {
      const upper = base.map((b, i) => b + (values[i] ?? 0));
      const line = upper.map((v, i) => `${x(i)},${y(v)}`);
      const back = base.map((v, i) => `${x(i)},${y(v)}`).reverse();
      svg.append(el("polygon", { points: [...line, ...back].join(" "), fill: `var(${color})`, "fill-opacity": 0.75 }));
      base = upper;
      continue;
    }
    let path = "";
    let pen = false;
    values.forEach((v, i) => {
      if (v === null || v === undefined) { pen = false; return; }
      path += `${pen ? "L" : "M"}${x(i).toFixed(1)},${y(v).toFixed(1)}`;
      pen = true;
    });
    svg.append(el("path", { d: path, fill: "none", stroke: `var(${color})`, "stroke-width": 1.6, "stroke-linejoin": "round", "stroke-linecap": "round" }));
  }
  return svg;
}

/** One bar a value, in order. */
export function bars(values, title) {
  const [w, h, left] = [640, 80, 36];
  const most = ceiling(Math.max(0, ...values));
  const width = (w - left) / Math.max(values.length, 20);
  const svg = el("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": title });
  for (const part of [0, 1]) {
    const at = h - 4 - (h - 12) * part;
    svg.append(el("line", { class: "grid", x1: left, x2: w, y1: at, y2: at }));
    svg.append(el("text", { x: left - 4, y: at + 3, "text-anchor": "end" }, number(most * part)));
  }
  values.forEach((value, i) => {
    const tall = ((h - 12) * value) / most;
    svg.append(el("rect", { x: left + i * width, y: h - 4 - tall, width: Math.max(0.5, width - 1), height: tall, fill: "var(--s1)" }));
  });
  return svg;
}
