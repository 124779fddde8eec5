// The Vercel AI SDK: `generateText` and `streamText` over each of its providers that we serve.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateText, jsonSchema, isStepCount, streamText, tool } from "ai";

import { API_KEY, WEATHER_TOOL, countingFetch, newSeen, seenError } from "../seen.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false; // of settings that a provider does not have

function provider(create, baseURL, ask, seen) {
  return create({
    baseURL,
    apiKey: API_KEY,
    name: "filature",
    includeUsage: ask.usage, // of openai-compatible only; openai asks for it always
    fetch: countingFetch(seen),
  });
}

const MODELS = {
  chat: (baseURL, ask, seen) => provider(createOpenAI, baseURL, ask, seen).chat(ask.model),
  completions: (baseURL, ask, seen) => provider(createOpenAI, baseURL, ask, seen).completion(ask.model),
  responses: (baseURL, ask, seen) => provider(createOpenAI, baseURL, ask, seen).responses(ask.model),
  compatible: (baseURL, ask, seen) => provider(createOpenAICompatible, baseURL, ask, seen)(ask.model),
  messages: (baseURL, ask, seen) => provider(createAnthropic, baseURL, ask, seen)(ask.model),
};

function settings(model, ask, signal) {
  return {
    model,
    prompt: ask.prompt,
    maxRetries: ask.max_retries,
    abortSignal: signal,
    ...(ask.tools && {
      tools: {
        [WEATHER_TOOL.name]: tool({
          description: WEATHER_TOOL.description,
          inputSchema: jsonSchema(WEATHER_TOOL.parameters),
          ...(ask.tool_result !== null && { execute: () => ask.tool_result }),
        }),
      },
    }),
    ...(ask.tool_result !== null && {
      // The SDK's own loop: it calls the tool and goes on with its result.
      stopWhen: isStepCount(2),
      // Else the provider refers to items by id, which a server that keeps nothing cannot resolve.
      providerOptions: { openai: { store: false } },
    }),
    ...(ask.invalid && { temperature: -1 }),
  };
}

/** The usage as the engine and the proxy wrote it, with the AI SDK's own names beside it. */
function usageOf(usage) {
  const { inputTokens, outputTokens } = usage ?? {};
  return { ...usage?.raw, inputTokens, outputTokens };
}

function callsOf(calls) {
  return calls.map((call) => ({ name: call.toolName, arguments: call.input }));
}

async function unary(model, ask, seen) {
  const result = await generateText(settings(model, ask));
  seen.text = result.text;
  seen.finish = result.finishReason;
  seen.usage = usageOf(result.usage);
  seen.tool_calls = callsOf(result.toolCalls);
}

async function streamed(model, ask, seen) {
  const leaving = new AbortController();
  const calls = [];
  // Errors come as parts of the stream, or from the promises; `onError` is where they are logged.
  const result = streamText({ ...settings(model, ask, leaving.signal), onError: () => {} });
  for await (const part of result.fullStream) {
    if (part.type === "error") {
      throw part.error;
    } else if (part.type === "text-delta") {
      seen.text += part.text;
      seen.pieces += part.text ? 1 : 0;
    } else if (part.type === "tool-input-delta") {
      seen.pieces += 1;
    } else if (part.type === "tool-call") {
      calls.push(part);
    } else if (part.type === "finish") {
      seen.finish = part.finishReason;
      seen.usage = usageOf(part.totalUsage);
    } else if (part.type === "finish-step") {
      seen.usage = usageOf(part.usage);
    }
    if (ask.stop_after && seen.pieces >= ask.stop_after) {
      leaving.abort();
      return;
    }
  }
  seen.tool_calls = callsOf(calls);
}

function entryPoint(kind) {
  return async (baseURL, ask) => {
    const seen = newSeen();
    const model = MODELS[kind](baseURL, ask, seen);
    try {
      await (ask.stream ? streamed : unary)(model, ask, seen);
    } catch (error) {
      seen.error = seenError(error);
    }
    return seen;
  };
}

export const chat = entryPoint("chat");
export const completions = entryPoint("completions");
export const responses = entryPoint("responses");
export const compatible = entryPoint("compatible");
export const messages = entryPoint("messages");

export async function embeddings(baseURL, ask) {
  const seen = newSeen();
  const model = provider(createOpenAICompatible, baseURL, ask, seen).embeddingModel(ask.model);
  try {
    const { embedding, usage } = await embed({
      model,
      value: ask.prompt,
      maxRetries: ask.max_retries,
    });
    seen.vector = embedding.length;
    seen.usage = { prompt_tokens: usage.tokens };
  } catch (error) {
    seen.error = seenError(error);
  }
  return seen;
}
