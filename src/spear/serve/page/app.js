// Brings the page's parts together: tabs, the key, and what the server serves.
import { getJson, useKey } from "./api.js";
import { beginChat, chatWith } from "./chat.js";
import { beginCompare, compareWith } from "./compare.js";
import { $ } from "./dom.js";
import { showFacts } from "./facts.js";
import { beginLive, resumeLive } from "./live.js";

const tabs = ["chat", "compare", "model"];

function select(name) {
  for (const each of tabs) {
    const chosen = each === name;
    $(`tab-${each}`).setAttribute("aria-selected", String(chosen));
    $(`tab-${each}`).tabIndex = chosen ? 0 : -1;
    $(`panel-${each}`).hidden = !chosen;
  }
}

function beginTabs() {
  tabs.forEach((name, i) => {
    const tab = $(`tab-${name}`);
    tab.addEventListener("click", () => select(name));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i + tabs.length - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = tabs[to % tabs.length];
      select(next);
      $(`tab-${next}`).focus();
    });
  });
}

function openKey(open) {
  $("key-form").hidden = !open;
  $("key-button").setAttribute("aria-expanded", String(open));
  if (open) $("key").focus();
}

function wantKey(message) {
  $("state").textContent = "an API key is needed";
  openKey(true);
  $("key-error").textContent = message;
}

function beginKey() {
  $("key-button").addEventListener("click", () => openKey($("key-form").hidden));
  $("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    $("key-error").textContent = "";
    useKey($("key").value.trim());
    if (!(await load())) return;
    openKey(false);
    $("prompt").focus();
  });
  document.addEventListener("key-wanted", (event) => wantKey(event.detail));
}

// Whether the model is known now. While it loads, asks again.
async function load() {
  try {
    const [card] = (await getJson("v1/models")).data;
    const tokenizer = await getJson("tokenizer_info");
    const served = { chat: Boolean(tokenizer.chat_template), compensators: card.meta?.compensators ?? 0 };
    $("model-name").textContent = card.id;
    document.title = `${card.id} – spear`;
    showFacts(card);
    chatWith(served);
    compareWith(served);
    $("state").textContent = "ready";
    resumeLive();
    return true;
  } catch (problem) {
    if (problem.status === 401) {
      wantKey($("key").value ? "The server does not take this key." : "This server wants an API key.");
    } else {
      $("state").textContent = problem.message;
      setTimeout(load, 2000);
    }
    return false;
  }
}

beginTabs();
beginKey();
beginChat();
beginCompare();
beginLive();
load();
