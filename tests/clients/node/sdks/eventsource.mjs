// fetch with eventsource-parser: an application that reads the event stream itself.

import { EventSourceParserStream } from "eventsource-parser/stream";

import {
  API_KEY, ToolCalls, WEATHER_TOOL, chatMessages, countingFetch, newSeen, usageOptions,
} from "../seen.mjs";

function add(seen, calls, chunk) {
  seen.without_choices += chunk.choices.length === 0 ? 1 : 0;
  seen.usage = chunk.usage ?? seen.usage;
  for (const choice of chunk.choices) {
    if (choice.delta.content) {
      seen.text += choice.delta.content;
      seen.pieces += 1;
    }
    for (const call of choice.delta.tool_calls ?? []) {
      calls.add(call.index, call.function.name, call.function.arguments);
      seen.pieces += 1;
    }
    seen.finish = choice.finish_reason ?? seen.finish;
  }
}

export async function chat(baseURL, ask) {
  const seen = newSeen();
  const calls = new ToolCalls();
  const leaving = new AbortController();
  const body = { model: ask.model, messages: chatMessages(ask) };
  if (ask.tools) body.tools = [{ type: "function", function: WEATHER_TOOL }];
  if (ask.invalid) body.temperature = -1;
  if (ask.stream) Object.assign(body, { stream: true }, usageOptions(ask));
  const response = await countingFetch(seen)(`${baseURL}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${API_KEY}` },
    body: JSON.stringify(body),
    signal: leaving.signal,
  });
  if (!response.ok) {
    const { error } = await response.json();
    seen.error = {
      kind: "status", message: error.message, status: response.status, code: error.code,
    };
    return seen;
  }
  if (!ask.stream) {
    const document = await response.json();
    const [choice] = document.choices;
    seen.text = choice.message.content ?? "";
    seen.finish = choice.finish_reason;
    seen.usage = document.usage;
    for (const [index, call] of (choice.message.tool_calls ?? []).entries()) {
      calls.add(index, call.function.name, call.function.arguments);
    }
    seen.tool_calls = calls.whole();
    return seen;
  }
  const events = response.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream());
  for await (const event of events) {
    if (event.data === "[DONE]") break;
    const chunk = JSON.parse(event.data);
    if (chunk.error) {
      const { message, code } = chunk.error;
      seen.error = { kind: "event", message, status: null, code };
      return seen;
    }
    add(seen, calls, chunk);
    if (ask.stop_after && seen.pieces >= ask.stop_after) {
      leaving.abort();
      return seen;
    }
  }
  seen.tool_calls = calls.whole();
  return seen;
}
