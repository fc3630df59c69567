// The conversation: what was said is kept here and sent whole each time.
import { answer } from "./api.js";
import { $, describe, element, endings, numberOf } from "./dom.js";

let messages = [];
let running = null;  // the AbortController of the answer under way
let model = { chat: true };

export function chatWith(served) {
  model = served;
  if (!served.chat) $("prompt-label").textContent = "Text to continue (this model has no chat template)";
}

function addTurn(who, mine) {
  const turn = element("li", mine ? "mine" : "");
  turn.append(element("h3", "", who));
  const text = element("div", "text");
  text.dir = "auto";
  const node = document.createTextNode("");
  text.append(node);
  const note = element("p", "note");
  turn.append(text, note);
  $("log").append(turn);
  return { turn, node, note };
}

// Keeps the newest line in view, unless the reader has scrolled away from it.
function follow(change) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  change();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// Screen readers hear whole sentences, not tokens.
class Speaker {
  pending = "";

  add(text) {
    this.pending += text;
    const end = this.pending.search(/[.!?:\n。！？][^.!?:\n。！？]*$/);
    if (end >= 0) this.say(this.pending.slice(0, end + 1), this.pending.slice(end + 1));
  }

  finish(note) {
    this.say(`${this.pending} ${note}`, "");
  }

  say(text, rest) {
    this.pending = rest;
    if (text.trim()) $("spoken").append(element("p", "", text));
  }
}

function setRunning(controller) {
  running = controller;
  $("send").disabled = controller !== null;
  $("stop").disabled = controller === null;
}

function body() {
  const system = $("system").value.trim();
  return {
    chat: model.chat,
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    temperature: numberOf("temperature"),
    top_p: numberOf("top-p"),
    max_tokens: numberOf("max-tokens"),
    seed: numberOf("seed"),
  };
}

async function receive(view, controller) {
  const speaker = new Speaker();
  let usage = null, metrics = null, ending = "";
  try {
    for await (const piece of answer(body(), controller.signal)) {
      if (piece.text) follow(() => view.node.appendData(piece.text));
      speaker.add(piece.text);
      usage = piece.usage ?? usage;
      metrics = piece.metrics ?? metrics;
      ending = endings[piece.finish] ?? ending;
    }
  } catch (problem) {
    if (problem.name !== "AbortError") throw problem;
    ending = endings.stopped;
  } finally {
    view.turn.classList.remove("busy");
    follow(() => { view.note.textContent = describe(usage, metrics, ending); });
    if (view.turn.isConnected) speaker.finish(view.note.textContent);
  }
}

async function send() {
  const text = $("prompt").value;
  if (running || !text.trim()) return;
  $("prompt").value = "";
  $("chat-error").textContent = "";
  messages.push({ role: "user", content: text });
  const question = addTurn("You", true);
  question.node.appendData(text);
  const view = addTurn("Model", false);
  view.turn.classList.add("busy");
  $("log").scrollTop = $("log").scrollHeight;
  $("spoken").replaceChildren();
  const controller = new AbortController();
  setRunning(controller);
  try {
    await receive(view, controller);
  } catch (problem) {
    if (running === controller) $("chat-error").textContent = problem.message;
    if (problem.status === 401) document.dispatchEvent(new CustomEvent("key-wanted", { detail: problem.message }));
  } finally {
    finish(view, question, text, controller);
  }
}

// An answer that never began is taken back, so that it can be asked again.
function finish(view, question, text, controller) {
  if (running !== controller) return;  // a new chat was begun meanwhile
  setRunning(null);
  if (view.node.data) {
    messages.push({ role: "assistant", content: view.node.data });
    return;
  }
  if ($("chat-error").textContent || view.note.textContent === endings.stopped) {
    messages.pop();
    view.turn.remove();
    question.turn.remove();
    if (!$("prompt").value) $("prompt").value = text;
  }
}

function stop() {
  if (!running) return;
  running.abort();
  $("prompt").focus();
}

function clear() {
  running?.abort();
  setRunning(null);
  messages = [];
  $("log").replaceChildren();
  $("spoken").replaceChildren();
  $("chat-error").textContent = "";
  $("prompt").focus();
}

export function beginChat() {
  $("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  $("panel-chat").addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
  });
  $("stop").addEventListener("click", stop);
  $("clear").addEventListener("click", clear);
}
