// The openai package of Node.js: chat completions, completions, embeddings, responses.

import OpenAI from "openai";

import {
  API_KEY, ToolCalls, WEATHER_TOOL, chatMessages, countingFetch, newSeen, responsesInput, seenError,
  usageOptions,
} from "../seen.mjs";

function client(baseURL, ask, seen) {
  return new OpenAI({
    baseURL, apiKey: API_KEY, maxRetries: ask.max_retries, timeout: 20_000, fetch: countingFetch(seen),
  });
}

async function guarded(seen, run) {
  try {
    await run();
  } catch (error) {
    if (!(error instanceof OpenAI.OpenAIError)) throw error;
    seen.error = seenError(error);
  }
  return seen;
}

const left = (ask, seen) => ask.stop_after && seen.pieces >= ask.stop_after;

export async function chat(baseURL, ask) {
  const seen = newSeen();
  const calls = new ToolCalls();
  const body = { model: ask.model, messages: chatMessages(ask) };
  if (ask.tools) body.tools = [{ type: "function", function: WEATHER_TOOL }];
  if (ask.invalid) body.temperature = -1;
  return guarded(seen, async () => {
    const completions = client(baseURL, ask, seen).chat.completions;
    if (!ask.stream) {
      const answer = await completions.create(body);
      const [choice] = answer.choices;
      seen.text = choice.message.content ?? "";
      seen.finish = choice.finish_reason;
      seen.usage = answer.usage;
      for (const [index, call] of (choice.message.tool_calls ?? []).entries()) {
        calls.add(index, call.function.name, call.function.arguments);
      }
      seen.tool_calls = calls.whole();
      return;
    }
    const stream = await completions.create({
      ...body, stream: true, ...usageOptions(ask),
    });
    for await (const chunk of stream) {
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
      if (left(ask, seen)) return; // leaving the loop aborts the request
    }
    seen.tool_calls = calls.whole();
  });
}

export async function completions(baseURL, ask) {
  const seen = newSeen();
  const body = { model: ask.model, prompt: ask.prompt };
  if (ask.invalid) body.temperature = -1;
  const add = (completion) => {
    seen.without_choices += completion.choices.length === 0 ? 1 : 0;
    seen.usage = completion.usage ?? seen.usage;
    for (const choice of completion.choices) {
      seen.text += choice.text;
      seen.pieces += choice.text ? 1 : 0;
      seen.finish = choice.finish_reason ?? seen.finish;
    }
  };
  return guarded(seen, async () => {
    const api = client(baseURL, ask, seen).completions;
    if (!ask.stream) return add(await api.create(body));
    const stream = await api.create({
      ...body, stream: true, ...usageOptions(ask),
    });
    for await (const chunk of stream) {
      add(chunk);
      if (left(ask, seen)) return;
    }
  });
}

export async function embeddings(baseURL, ask) {
  const seen = newSeen();
  return guarded(seen, async () => {
    const answer = await client(baseURL, ask, seen).embeddings.create({
      model: ask.model, input: ask.invalid ? [] : ask.prompt,
    });
    seen.vector = answer.data[0].embedding.length;
    seen.usage = answer.usage;
  });
}

export async function responses(baseURL, ask) {
  const seen = newSeen();
  const body = { model: ask.model, input: responsesInput(ask) };
  if (ask.tools) body.tools = [{ type: "function", strict: true, ...WEATHER_TOOL }];
  if (ask.invalid) body.temperature = -1;
  const read = (response) => {
    seen.finish = response.status;
    seen.usage = response.usage ?? {};
    seen.tool_calls = response.output
      .filter((item) => item.type === "function_call")
      .map((item) => ({ name: item.name, arguments: JSON.parse(item.arguments) }));
  };
  return guarded(seen, async () => {
    const api = client(baseURL, ask, seen).responses;
    if (!ask.stream) {
      const response = await api.create(body);
      seen.text = response.output_text;
      return read(response);
    }
    const stream = await api.create({ ...body, stream: true });
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") {
        seen.text += event.delta;
        seen.pieces += 1;
      } else if (event.type === "response.function_call_arguments.delta") {
        seen.pieces += 1;
      } else if (event.type === "response.completed") {
        read(event.response);
      }
      if (left(ask, seen)) return;
    }
  });
}
