// A small line plot in SVG: one or two series over the last readings, perhaps with a line that should not be crossed.
import { element } from "./dom.js";

const kWidth = 240, kHeight = 56, kMost = 120;

function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// 1, 2 or 5 times a power of ten that is at least the value.
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((limit) => limit >= value * 0.999);
}

export class Plot {
  // `show` writes a value; `names` of the series, where there are several.
  constructor({ title, show, names = [], top = 0 }) {
    this.title = title;
    this.show = show;
    this.names = names;
    this.top = top;
    this.readings = [];
    this.limit = null;
    this.figure = element("figure", "plot");
    this.value = element("b", "", "–");
    const caption = element("figcaption");
    caption.append(element("span", "", title), this.value);
    this.drawing = svg("svg", { viewBox: `0 0 ${kWidth} ${kHeight}`, preserveAspectRatio: "none", role: "img" });
    this.first = svg("path", {});
    this.second = svg("path", { class: "second" });
    this.line = svg("path", { class: "limit" });
    this.drawing.append(this.line, this.second, this.first);
    const scale = element("p", "scale");
    scale.setAttribute("aria-hidden", "true");
    this.legend = element("span");
    names.forEach((name, i) => this.legend.append(element("span", i === 0 ? "key" : "key second", name)));
    this.objective = element("span", "key limit");
    this.legend.append(this.objective);
    this.most = element("span");
    scale.append(this.legend, this.most);
    this.figure.append(caption, this.drawing, scale);
  }

  // A reading: one number a series, null where there is nothing to show.
  add(values, limit = null) {
    this.readings.push(values);
    if (this.readings.length > kMost) this.readings.shift();
    this.limit = limit;
    this.draw();
  }

  path(series, top) {
    let text = "", open = false;
    this.readings.forEach((values, i) => {
      const value = values[series] ?? null;
      if (value === null) {
        open = false;
        return;
      }
      const x = kWidth * (kMost - this.readings.length + i + 1) / kMost;
      const y = kHeight - 2 - (kHeight - 4) * Math.min(value / top, 1);
      // A lone reading is a short line, for else it would not be seen.
      text += open ? `L${x.toFixed(1)} ${y.toFixed(1)}` : `M${(x - 1).toFixed(1)} ${y.toFixed(1)}L${x.toFixed(1)} ${y.toFixed(1)}`;
      open = true;
    });
    return text;
  }

  draw() {
    const seen = this.readings.flat().filter((value) => value !== null);
    const top = this.top || roundUp(Math.max(...seen, this.limit ?? 0, 0));
    this.first.setAttribute("d", this.path(0, top));
    this.second.setAttribute("d", this.path(1, top));
    const height = kHeight - 2 - (kHeight - 4) * (this.limit ?? 0) / top;
    this.line.setAttribute("d", this.limit === null ? "" : `M0 ${height}H${kWidth}`);
    const now = this.readings.at(-1).map((value) => (value === null ? "–" : this.show(value)));
    const objective = this.limit === null ? "" : `objective ${this.show(this.limit)}`;
    this.value.textContent = now.join(" · ");
    this.objective.textContent = objective;
    this.objective.hidden = objective === "";
    this.most.textContent = `top ${this.show(top)}`;
    const named = now.map((value, i) => (this.names[i] ? `${this.names[i]} ${value}` : value));
    this.drawing.setAttribute("aria-label", [`${this.title}: ${named.join(", ")}`, objective].filter(Boolean).join("; "));
  }
}
