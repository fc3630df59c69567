// What the page asks of its server: JSON, text, and streams of tokens. Paths are relative, so that the page works behind
// a prefix; the key stays in this module's memory.
let key = "";

export function useKey(text) {
  key = text;
}

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key) {
    // A header's value can hold no other characters, and no key has any.
    if (!/^[!-~]+$/.test(key)) throw new ApiError(401, "A key has printable characters without spaces only.");
    headers.Authorization = `Bearer ${key}`;
  }
  let reply;
  try {
    reply = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError(0, "The server cannot be reached.");
  }
  if (reply.ok) return reply;
  throw await refusal(reply);
}

async function refusal(reply) {
  let message = `The server answered ${reply.status}.`;
  try {
    const body = await reply.json();
    if (typeof body.error?.message === "string") message = body.error.message;
  } catch {
    // No JSON: a proxy's page; the status says it.
  }
  const later = Number(reply.headers.get("Retry-After"));
  if (reply.status === 429 && later > 0) message += ` Try again in ${later} s.`;
  return new ApiError(reply.status, message);
}

export async function getJson(path) {
  return (await ask(path)).json();
}

export async function getText(path) {
  return (await ask(path)).text();
}

// The data of each event of a stream.
async function* events(reply) {
  const reader = reply.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ApiError(0, "The connection broke off before the answer's end.");
    rest += decoder.decode(value, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      if (line === "data: [DONE]") return;
      yield JSON.parse(line.slice(6));
    }
  }
}

// Streams an answer to `messages`: { text, tokens, finish, usage, metrics } as they come. A model without a chat template
// continues the last message's text.
export async function* answer({ messages, chat, ...fields }, signal) {
  const prompt = chat ? { messages } : { prompt: messages.at(-1).content };
  const reply = await ask(chat ? "v1/chat/completions" : "v1/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      ...prompt, ...fields, stream: true, stream_options: { include_usage: true }, include_metrics: true,
    }),
    signal,
  });
  for await (const event of events(reply)) {
    if (event.error) throw new ApiError(500, String(event.error.message));
    const choice = event.choices?.[0];
    const logprobs = choice?.logprobs;
    yield {
      text: choice?.delta?.content ?? choice?.text ?? "",
      tokens: logprobs?.content ?? logprobs?.tokens?.map((token) => ({ token })) ?? [],
      finish: choice?.finish_reason ?? null,
      usage: event.usage ?? null,
      metrics: event.metrics ?? null,
    };
  }
}
