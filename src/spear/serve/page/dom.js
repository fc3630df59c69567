// Small helpers over the document. Text of the model and of the server enters as text nodes only.
export const $ = (id) => document.getElementById(id);

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A field's number, or undefined where it is empty.
export function numberOf(id) {
  const value = $(id).valueAsNumber;
  return Number.isNaN(value) ? undefined : value;
}

export function rounded(value, digits = 3) {
  return Number(value.toPrecision(digits)).toLocaleString("en");
}

export function milliseconds(value) {
  return value >= 1000 ? `${rounded(value / 1000)} s` : `${rounded(value)} ms`;
}

// "12 tokens, 31.2 tokens/s, first after 120 ms"
export function describe(usage, metrics, ending) {
  const parts = [];
  if (usage) parts.push(usage.completion_tokens === 1 ? "1 token" : `${usage.completion_tokens} tokens`);
  if (metrics) {
    parts.push(`${rounded(metrics.tokens_per_second)} tokens/s`);
    parts.push(`first after ${milliseconds(metrics.time_to_first_token_ms)}`);
    if (metrics.mean_itl_ms > 0) parts.push(`then one every ${milliseconds(metrics.mean_itl_ms)}`);
  }
  if (ending) parts.push(ending);
  return parts.join(", ");
}

export const endings = { length: "cut off at the most tokens", stopped: "stopped", tool_calls: "called a tool" };
