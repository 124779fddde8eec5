// What an SDK of Node.js is asked and what came out of it: the counterpart of ask.py.

export const API_KEY = "sk-test";

export const WEATHER_TOOL = {
  name: "get_weather",
  description: "The weather in a city.",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};

const CALL_ID = "call_1";
const CALL_ARGUMENTS = { city: "Lyon" };

/** The conversation so far, in the dialect of chat completions. */
export function chatMessages(ask) {
  const messages = [{ role: "user", content: ask.prompt }];
  if (ask.tool_result !== null) {
    const called = { name: WEATHER_TOOL.name, arguments: JSON.stringify(CALL_ARGUMENTS) };
    messages.push(
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: CALL_ID, type: "function", function: called }],
      },
      { role: "tool", tool_call_id: CALL_ID, content: ask.tool_result },
    );
  }
  return messages;
}

/** The same in the dialect of responses. */
export function responsesInput(ask) {
  if (ask.tool_result === null) return ask.prompt;
  const args = JSON.stringify(CALL_ARGUMENTS);
  return [
    { role: "user", content: ask.prompt },
    { type: "function_call", call_id: CALL_ID, name: WEATHER_TOOL.name, arguments: args },
    { type: "function_call_output", call_id: CALL_ID, output: ask.tool_result },
  ];
}

/** The same in the dialect of Anthropic messages. */
export function anthropicMessages(ask) {
  const messages = [{ role: "user", content: ask.prompt }];
  if (ask.tool_result !== null) {
    const call = { type: "tool_use", id: CALL_ID, name: WEATHER_TOOL.name, input: CALL_ARGUMENTS };
    const result = { type: "tool_result", tool_use_id: CALL_ID, content: ask.tool_result };
    messages.push({ role: "assistant", content: [call] }, { role: "user", content: [result] });
  }
  return messages;
}

/** What asks for the usage in a stream of chat or completions. */
export function usageOptions(ask) {
  return ask.usage ? { stream_options: { include_usage: true } } : {};
}

/** An empty `Seen`, as ask.py describes it. */
export function newSeen() {
  return {
    text: "",
    pieces: 0,
    without_choices: 0,
    finish: null,
    usage: {},
    tool_calls: [],
    vector: 0,
    error: null,
    attempts: 0,
  };
}

/** What an application can read off an error of these SDKs. */
export function seenError(error) {
  const last = error.lastError ?? error; // the AI SDK wraps the last of several tries
  const status = last.status ?? last.statusCode ?? null;
  const code = last.code ?? last.data?.error?.code ?? null;
  return {
    kind: error.constructor?.name ?? "Error",
    message: String(error.message ?? error),
    status: typeof status === "number" ? status : null,
    code: code === null ? null : String(code),
  };
}

/** The global fetch, counting the requests into `seen.attempts`. */
export function countingFetch(seen) {
  return (url, init) => {
    seen.attempts += 1;
    return fetch(url, init);
  };
}

/** Adds streamed pieces of tool calls up, by index. */
export class ToolCalls {
  #parts = new Map();

  add(index, name, args) {
    const part = this.#parts.get(index) ?? { name: "", arguments: "" };
    part.name += name ?? "";
    part.arguments += args ?? "";
    this.#parts.set(index, part);
  }

  whole() {
    return [...this.#parts.values()].map(({ name, arguments: text }) => ({
      name,
      arguments: JSON.parse(text),
    }));
  }
}
