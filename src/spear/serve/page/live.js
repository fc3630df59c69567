// Polls /metrics and draws what it says. Rests while nobody looks at the page.
import { getText } from "./api.js";
import { $, milliseconds, rounded } from "./dom.js";
import { parseMetrics, quantile } from "./metrics.js";
import { Plot } from "./plot.js";

const kEvery = 2000;  // milliseconds between readings
const kWindow = 5;    // readings over which latencies are taken

const seconds = (value) => milliseconds(1000 * value);
const plots = {
  speed: new Plot({ title: "Tokens a second", show: (value) => rounded(value) }),
  first: new Plot({ title: "To the first token", show: seconds, names: ["median", "99 %"] }),
  gap: new Plot({ title: "Between tokens", show: seconds, names: ["median", "99 %"] }),
  batch: new Plot({ title: "Answers", show: (value) => String(value), names: ["running", "waiting"] }),
  rows: new Plot({ title: "Tokens a step", show: (value) => rounded(value) }),
  cache: new Plot({ title: "Cache in use", show: (value) => `${rounded(100 * value)} %`, top: 1 }),
};

let readings = [];
let timer = 0;
let reading = false;

function objective({ values }, name) {
  const found = values.get(name) ?? 0;
  return found > 0 ? found : null;
}

function latency(name, share) {
  const [oldest, newest] = [readings[0], readings.at(-1)];
  return quantile(oldest.histograms.get(name), newest.histograms.get(name), share);
}

function show(before, now) {
  const change = (name) => (now.values.get(name) ?? 0) - (before.values.get(name) ?? 0);
  const value = (name) => now.values.get(name) ?? 0;
  plots.speed.add([change("vllm:generation_tokens_total") / ((now.time - before.time) / 1000)]);
  const first = "vllm:time_to_first_token_seconds", gap = "spear:inter_token_latency_seconds";
  plots.first.add([latency(first, 0.5), latency(first, 0.99)], objective(now, "spear:ttft_objective_seconds"));
  plots.gap.add([latency(gap, 0.5), latency(gap, 0.99)], objective(now, "spear:itl_objective_seconds"));
  plots.batch.add([value("vllm:num_requests_running"), value("vllm:num_requests_waiting")]);
  const steps = change("vllm:iteration_tokens_total_count");
  plots.rows.add([steps > 0 ? change("vllm:iteration_tokens_total_sum") / steps : null]);
  plots.cache.add([value("vllm:kv_cache_usage_perc")]);
}

async function read() {
  try {
    const now = parseMetrics(await getText("metrics"));
    now.time = performance.now();
    const before = readings.at(-1);
    // A counter that fell: the server was started anew.
    const anew = before && now.values.get("spear:steps_total") < before.values.get("spear:steps_total");
    readings = anew ? [now] : [...readings, now].slice(-kWindow - 1);
    if (before && !anew) show(before, now);
    $("live-state").textContent = "Of all requests to this server, from /metrics.";
    return true;
  } catch (problem) {
    $("live-state").textContent = `No figures: ${problem.message}`;
    return problem.status !== 401;  // asking again would not help
  }
}

async function turn() {
  timer = 0;
  if (document.hidden) return;
  reading = true;
  const more = await read();
  reading = false;
  if (more) timer = setTimeout(turn, kEvery);
}

export function beginLive() {
  $("plots").append(...Object.values(plots).map((plot) => plot.figure));
  document.addEventListener("visibilitychange", resumeLive);
}

export function resumeLive() {
  if (timer === 0 && !reading) turn();
}
