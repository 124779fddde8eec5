// The @anthropic-ai/sdk package of Node.js, by its accumulating helper.

import Anthropic, { AnthropicError } from "@anthropic-ai/sdk";

import {
  API_KEY, WEATHER_TOOL, anthropicMessages, countingFetch, newSeen, seenError,
} from "../seen.mjs";

export async function messages(baseURL, ask) {
  const seen = newSeen();
  const client = new Anthropic({
    baseURL: baseURL.replace(/\/v1$/, ""),
    apiKey: API_KEY,
    maxRetries: ask.max_retries,
    timeout: 20_000,
    fetch: countingFetch(seen),
  });
  const body = {
    model: ask.model, max_tokens: 4096, messages: anthropicMessages(ask),
  };
  if (ask.tools) {
    const { name, description, parameters } = WEATHER_TOOL;
    body.tools = [{ name, description, input_schema: parameters }];
  }
  if (ask.invalid) body.temperature = -1;
  const read = (message) => {
    seen.text = message.content.filter((b) => b.type === "text").map((b) => b.text).join("");
    seen.finish = message.stop_reason;
    seen.usage = { ...seen.usage, ...message.usage };
    seen.tool_calls = message.content
      .filter((block) => block.type === "tool_use")
      .map((block) => ({ name: block.name, arguments: block.input }));
  };
  try {
    if (!ask.stream) {
      read(await client.messages.create(body));
      return seen;
    }
    const stream = client.messages.stream(body);
    for await (const event of stream) {
      if (event.type === "content_block_delta") {
        const piece = event.delta.text ?? event.delta.partial_json ?? "";
        seen.text += event.delta.text ?? "";
        seen.pieces += piece ? 1 : 0;
      } else if (event.type === "message_delta") {
        seen.usage = { ...event.usage };
      }
      if (ask.stop_after && seen.pieces >= ask.stop_after) {
        stream.abort();
        return seen;
      }
    }
    read(await stream.finalMessage());
  } catch (error) {
    if (!(error instanceof AnthropicError)) throw error;
    seen.error = seenError(error);
  }
  return seen;
}
