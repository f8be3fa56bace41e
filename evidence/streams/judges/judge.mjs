// The Node judges: client libraries that read an answer and tell what they saw. judge.py describes jobs and verdicts.

import readline from 'node:readline';
import Anthropic from '@anthropic-ai/sdk';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, streamText, tool } from 'ai';
import OpenAI from 'openai';

const TIMEOUT_MS = 30_000;
const AT_ONCE = 4;
globalThis.AI_SDK_LOG_WARNINGS = false;
process.on('unhandledRejection', () => {}); // a library's own side promises; what it tells its caller is judged

class Seen {
  content = [];
  finish = [];
  built = null;

  text(value) {
    if (value) this.content.push(typeof value === 'string' ? value : JSON.stringify(value));
  }

  finished(value) {
    if (value) this.finish.push(typeof value === 'string' ? value : JSON.stringify(value));
  }
}

const clients = new Map();

function once(key, make) {
  if (!clients.has(key)) clients.set(key, make());
  return clients.get(key);
}

const options = { apiKey: 'k', timeout: TIMEOUT_MS, maxRetries: 0 };
const openai = (base) => once(`openai ${base}`, () => new OpenAI({ baseURL: `${base}/v1`, ...options }));
const anthropic = (base) => once(`anthropic ${base}`, () => new Anthropic({ baseURL: base, ...options }));

async function partsOf(made, stream) {
  if (!stream) return [made];
  return made;
}

// openai-node

function chatChoice(seen, choice) {
  const said = choice.delta ?? choice.message;
  if (said) {
    seen.text(said.reasoning_content);
    seen.text(said.content);
    seen.text(said.refusal);
    for (const call of said.tool_calls ?? []) {
      seen.text(call.function?.name);
      seen.text(call.function?.arguments);
    }
  }
  if (choice.finish_reason) seen.finished(`${choice.index}:${choice.finish_reason}`);
}

async function openaiChat(job, seen) {
  const made = await openai(job.base).chat.completions.create({ model: job.model, stream: job.stream, ...job.request });
  seen.built = [];
  for await (const part of await partsOf(made, job.stream)) {
    seen.built.push(part);
    for (const choice of part.choices ?? []) chatChoice(seen, choice);
  }
}

async function openaiChatHelper(job, seen) {
  const stream = openai(job.base).chat.completions.stream({ model: job.model, ...job.request });
  stream.on('content', (delta) => seen.text(delta));
  const final = await stream.finalChatCompletion();
  seen.content = [];
  for (const choice of final.choices) chatChoice(seen, choice);
  seen.built = final;
}

async function openaiCompletions(job, seen) {
  const made = await openai(job.base).completions.create({ model: job.model, stream: job.stream, ...job.request });
  seen.built = [];
  for await (const part of await partsOf(made, job.stream)) {
    seen.built.push(part);
    for (const choice of part.choices ?? []) {
      seen.text(choice.text);
      seen.finished(choice.finish_reason);
    }
  }
}

const ENDS = ['response.completed', 'response.incomplete', 'response.failed', 'error'];

async function openaiResponses(job, seen) {
  const made = await openai(job.base).responses.create({ model: job.model, stream: job.stream, ...job.request });
  if (!job.stream) {
    seen.built = made;
    seen.text(made.output_text);
    for (const item of made.output.filter(({ type }) => type === 'function_call')) {
      seen.text(item.name);
      seen.text(item.arguments);
    }
    seen.finished(made.status);
    return;
  }
  seen.built = [];
  for await (const event of made) {
    seen.built.push(event);
    if (event.type.endsWith('.delta')) seen.text(event.delta);
    if (ENDS.includes(event.type)) seen.finished(event.type);
  }
}

async function openaiResponsesHelper(job, seen) {
  const stream = openai(job.base).responses.stream({ model: job.model, ...job.request });
  stream.on('event', (event) => event.type.endsWith('.delta') && seen.text(event.delta));
  const final = await stream.finalResponse();
  seen.finished(final.status);
  seen.built = final;
}

// @anthropic-ai/sdk

function messageBlock(seen, block) {
  for (const name of ['thinking', 'text', 'partial_json', 'input']) seen.text(block[name]);
}

async function anthropicMessages(job, seen) {
  const made = await anthropic(job.base).messages.create({ model: job.model, stream: job.stream, ...job.request });
  if (!job.stream) {
    seen.built = made;
    for (const block of made.content) messageBlock(seen, block);
    seen.finished(made.stop_reason);
    return;
  }
  seen.built = [];
  for await (const event of made) {
    seen.built.push(event);
    if (event.type === 'content_block_delta') messageBlock(seen, event.delta);
    if (event.type === 'message_delta') seen.finished(event.delta.stop_reason);
  }
}

async function anthropicMessagesHelper(job, seen) {
  const stream = anthropic(job.base).messages.stream({ model: job.model, ...job.request });
  stream.on('text', (text) => seen.text(text));
  const final = await stream.finalMessage();
  seen.content = [];
  for (const block of final.content) messageBlock(seen, block);
  seen.finished(final.stop_reason);
  seen.built = final;
}

// Vercel AI SDK

const MODELS = {
  chat: (job) =>
    once(`ai chat ${job.base}`, () =>
      createOpenAICompatible({ name: 'judge', baseURL: `${job.base}/v1`, apiKey: 'k', includeUsage: true }))(job.model),
  completions: (job) =>
    once(`ai completions ${job.base}`, () =>
      createOpenAICompatible({ name: 'judge', baseURL: `${job.base}/v1`, apiKey: 'k' })).completionModel(job.model),
  responses: (job) =>
    once(`ai responses ${job.base}`, () => createOpenAI({ baseURL: `${job.base}/v1`, apiKey: 'k' })).responses(job.model),
  messages: (job) =>
    once(`ai messages ${job.base}`, () => createAnthropic({ baseURL: `${job.base}/v1`, apiKey: 'k' }))(job.model),
};

function aiRequest(job) {
  const asked = job.request;
  const prompt = asked.prompt ?? asked.input ?? asked.messages.at(-1).content;
  const request = { model: MODELS[job.protocol](job), prompt, maxRetries: 0, abortSignal: AbortSignal.timeout(TIMEOUT_MS) };
  if (asked.tools) {
    request.tools = Object.fromEntries(asked.tools.map((each) => {
      const named = each.function ?? each;
      const schema = named.parameters ?? named.input_schema ?? { type: 'object' };
      return [named.name, tool({ description: named.description, inputSchema: jsonSchema(schema) })];
    }));
  }
  return request;
}

const DELTAS = new Set(['text-delta', 'reasoning-delta', 'tool-input-delta']);

async function aiSdk(job, seen) {
  if (!job.stream) {
    const made = await generateText(aiRequest(job));
    seen.text(made.reasoningText);
    seen.text(made.text);
    for (const call of made.toolCalls) {
      seen.text(call.toolName);
      seen.text(call.input);
    }
    seen.finished(made.finishReason);
    const { text, reasoningText, toolCalls, finishReason, usage, sources, files } = made;
    seen.built = { text, reasoningText, toolCalls, finishReason, usage, sources, files };
    return;
  }
  const result = streamText({ ...aiRequest(job), onError() {} });
  seen.built = [];
  let failed = null;
  for await (const part of result.fullStream) {
    seen.built.push(part);
    if (DELTAS.has(part.type)) seen.text(part.text ?? part.delta);
    if (part.type === 'tool-input-start') seen.text(part.toolName);
    if (part.type === 'finish') seen.finished(part.finishReason);
    if (part.type === 'error') failed = part.error;
    if (part.type === 'abort') failed = new Error('aborted');
  }
  if (failed) throw failed instanceof Error ? failed : new Error(JSON.stringify(failed));
}

const WAYS = {
  'openai-node create chat': openaiChat,
  'openai-node helper chat': openaiChatHelper,
  'openai-node create completions': openaiCompletions,
  'openai-node create responses': openaiResponses,
  'openai-node helper responses': openaiResponsesHelper,
  'anthropic-node create messages': anthropicMessages,
  'anthropic-node helper messages': anthropicMessagesHelper,
  'ai-sdk create chat': aiSdk,
  'ai-sdk create completions': aiSdk,
  'ai-sdk create responses': aiSdk,
  'ai-sdk create messages': aiSdk,
};

async function judge(job) {
  const seen = new Seen();
  let error = null;
  try {
    await WAYS[`${job.judge} ${job.way} ${job.protocol}`](job, seen);
  } catch (raised) {
    error = `${raised?.constructor?.name}: ${String(raised?.message ?? raised).slice(0, 160)}`;
  }
  const built = job.object ? seen.built : null;
  return { id: job.id, content: seen.content.join(''), finish: seen.finish.join(','), error, object: built };
}

const jobs = [];
let ended = false;
let running = 0;

function next() {
  while (running < AT_ONCE && jobs.length) {
    running += 1;
    judge(jobs.shift()).then((verdict) => {
      process.stdout.write(`${JSON.stringify(verdict)}\n`);
      running -= 1;
      next();
    });
  }
  if (ended && !running && !jobs.length) process.exitCode = 0;
}

readline.createInterface({ input: process.stdin })
  .on('line', (line) => { jobs.push(JSON.parse(line)); next(); })
  .on('close', () => { ended = true; next(); });
