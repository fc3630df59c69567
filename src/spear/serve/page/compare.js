// The same prompt and seed with compensators and without, side by side.
import { answer } from "./api.js";
import { common, firstDifference, wholePieces } from "./diff.js";
import { $, describe, element, endings, numberOf } from "./dom.js";

const kMostTokens = 512;
const kRedraw = 200;  // milliseconds between two drawings while tokens come

let running = null;
let model = { chat: true };

export function compareWith(served) {
  model = served;
  if (served.compensators > 0) return;
  $("compare-run").disabled = true;
  $("compare-about").textContent = "This model carries no compensators, so there is nothing to compare.";
}

class Side {
  constructor(name, compensators) {
    this.text = $(`${name}-text`);
    this.note = $(`${name}-note`);
    this.compensators = compensators;
  }

  begin() {
    this.tokens = [];
    this.pieces = [];
    this.text.replaceChildren();
    this.note.textContent = "";
  }

  async run(fields, signal, changed) {
    let usage = null, metrics = null, ending = "";
    try {
      for await (const piece of answer({ ...fields, compensators: this.compensators }, signal)) {
        this.tokens.push(...piece.tokens);
        if (piece.tokens.length > 0) changed();
        usage = piece.usage ?? usage;
        metrics = piece.metrics ?? metrics;
        ending = endings[piece.finish] ?? ending;
      }
    } catch (problem) {
      if (problem.name !== "AbortError") throw problem;
      ending = endings.stopped;
    }
    this.note.textContent = describe(usage, metrics, ending);
  }

  // Neighbours that are alike share an element.
  draw(same) {
    const parts = [];
    for (let i = 0; i < this.pieces.length;) {
      let end = i + 1;
      while (end < this.pieces.length && same[end] === same[i]) ++end;
      const text = this.pieces.slice(i, end).join("");
      parts.push(same[i] ? document.createTextNode(text) : element("mark", "", text));
      i = end;
    }
    this.text.replaceChildren(...parts);
  }
}

function summary(a, b, inA, inB) {
  const first = firstDifference(a, b);
  if (first < 0) return `The same ${a.length} tokens with and without compensators.`;
  const differing = inA.filter((same) => !same).length + inB.filter((same) => !same).length;
  const shown = (pieces) => (first < pieces.length ? `“${pieces[first].trim() || pieces[first]}”` : "the end");
  return `They part at token ${first + 1}: ${shown(a)} with compensators, ${shown(b)} without. ` +
    `${differing} of ${a.length + b.length} tokens are not in both.`;
}

function draw(sides, last) {
  for (const side of sides) side.pieces = wholePieces(side.tokens);
  const [a, b] = sides.map((side) => side.pieces);
  // While one side is ahead, what the other has not reached yet is no difference.
  const shared = last ? Infinity : Math.min(a.length, b.length);
  const [inA, inB] = common(a.slice(0, shared), b.slice(0, shared));
  sides[0].draw(a.map((_, i) => inA[i] ?? true));
  sides[1].draw(b.map((_, i) => inB[i] ?? true));
  if (last && a.length + b.length > 0) $("compare-summary").textContent = summary(a, b, inA, inB);
}

function fields(prompt) {
  return {
    chat: model.chat,
    messages: [{ role: "user", content: prompt }],
    seed: numberOf("compare-seed") ?? 1,
    temperature: numberOf("compare-temperature") ?? 0,
    max_tokens: Math.min(numberOf("compare-tokens") ?? 96, kMostTokens),
    logprobs: model.chat ? true : 0,
  };
}

async function compare(sides) {
  const prompt = $("compare-prompt").value;
  if (running || !prompt.trim()) return;
  running = new AbortController();
  $("compare-run").disabled = true;
  $("compare-stop").disabled = false;
  $("compare-error").textContent = "";
  $("compare-summary").textContent = "Both answers are being written.";
  for (const side of sides) side.begin();
  let drawn = 0;
  const changed = () => {
    if (Date.now() - drawn < kRedraw) return;
    drawn = Date.now();
    draw(sides, false);
  };
  const { signal } = running;
  try {
    const asked = fields(prompt);
    await Promise.all(sides.map((side) => side.run(asked, signal, changed)));
  } catch (problem) {
    running.abort();  // half a comparison is none
    $("compare-error").textContent = problem.message;
    if (problem.status === 401) document.dispatchEvent(new CustomEvent("key-wanted", { detail: problem.message }));
  }
  $("compare-summary").textContent = "";
  draw(sides, true);
  running = null;
  $("compare-run").disabled = false;
  $("compare-stop").disabled = true;
}

function stop() {
  if (!running) return;
  running.abort();
  $("compare-prompt").focus();
}

export function beginCompare() {
  const sides = [new Side("with", "full"), new Side("without", "none")];
  $("compare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    compare(sides);
  });
  $("compare-prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    compare(sides);
  });
  $("panel-compare").addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
  });
  $("compare-stop").addEventListener("click", stop);
}
