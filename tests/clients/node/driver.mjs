// Runs one entry point of an SDK per line of standard input and prints what it saw, also one line each.
// In: {"sdk": "openai.chat", "base_url": "…/v1", "ask": {…}}. Out: {"seen": {…}} or {"crash": "…"}.

import { createInterface } from "node:readline";

import * as ai from "./sdks/ai.mjs";
import * as anthropic from "./sdks/anthropic.mjs";
import * as eventsource from "./sdks/eventsource.mjs";
import * as openai from "./sdks/openai.mjs";

const MODULES = { ai, anthropic, eventsource, openai };

for await (const line of createInterface({ input: process.stdin })) {
  const { sdk, base_url: baseURL, ask } = JSON.parse(line);
  const [module, entryPoint] = sdk.split(".");
  let answer;
  try {
    answer = { seen: await MODULES[module][entryPoint](baseURL, ask) };
  } catch (error) {
    answer = { crash: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
