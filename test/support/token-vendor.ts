import type { ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Seen, startUpstream, type TestUpstream } from './gateway.ts'

/** Fills up evenly, up to its size, as the buckets of OpenAI and Anthropic do. */
export class Bucket {
  readonly size: number
  readonly #windowMs: number
  #left: number
  #at = performance.now()

  constructor(size: number, windowMs: number) {
    this.size = size
    this.#windowMs = windowMs
    this.#left = size
  }

  get left(): number {
    const now = performance.now()
    this.#left = Math.min(this.size, this.#left + ((now - this.#at) * this.size) / this.#windowMs)
    this.#at = now
    return this.#left
  }

  take(units: number): void {
    this.#left = this.left - units
  }

  /** Milliseconds until so many units are there. */
  msUntil(units: number): number {
    return Math.max(0, ((units - this.left) * this.#windowMs) / this.size)
  }
}

/** Counts from nothing at the beginning of each window, as Azure does. The first one begins now. */
class Counter {
  readonly size: number
  readonly #windowMs: number
  readonly #since = performance.now()
  #used = 0
  #window = 0

  constructor(size: number, windowMs: number) {
    this.size = size
    this.#windowMs = windowMs
  }

  get left(): number {
    const window = Math.floor((performance.now() - this.#since) / this.#windowMs)
    if (window !== this.#window) this.#used = 0
    this.#window = window
    return this.size - this.#used
  }

  take(units: number): void {
    this.#used = this.size - this.left + units
  }

  msUntil(units: number): number {
    return this.left >= units ? 0 : this.#windowMs - ((performance.now() - this.#since) % this.#windowMs)
  }
}

type Count = Bucket | Counter

export interface TokenVendor extends TestUpstream {
  /** How many calls it answered 429. */
  readonly refused: number
  /** What it counts for each model or deployment, by what its headers call it. */
  readonly counts: ReadonlyMap<string, Readonly<Record<string, Count>>>
  /** Units that were counted, by the same. */
  readonly taken: Readonly<Record<string, number>>
}

interface VendorOptions {
  /** Units in a window, by what the vendor's headers call them. */
  readonly limits: Readonly<Record<string, number>>
  readonly windowMs?: number
  /** How long a stream takes. */
  readonly streamMs?: number
}

interface Asked {
  readonly model: string
  readonly stream?: boolean
  readonly max_tokens?: number
  readonly best_of?: number
  readonly stream_options?: { readonly include_usage?: boolean }
  readonly messages: readonly { readonly content: string }[]
}

/** What a call costs, which is known of a stand-in: `say 12` is answered by 12 tokens. */
function tokensOf({ messages }: Asked): { input: number; output: number } {
  const text = messages.map(({ content }) => content).join('')
  return { input: Math.ceil(text.length / 4), output: Number(/say (\d+)/.exec(text)?.[1] ?? 1) }
}

interface Vendor {
  /** What names the counts of a call. */
  keyOf(seen: Seen, asked: Asked): string
  /** What is counted as the request arrives, before which it may be refused; each 0 only needs to have anything left. */
  estimate(asked: Asked): Record<string, number>
  headers(counts: Readonly<Record<string, Count>>): Record<string, string>
  refusal(name: string, counts: Readonly<Record<string, Count>>, wanted: number): { headers: object; body: object }
  answer(asked: Asked): { body: object; events: readonly object[] }
  /** What the outcome changes of the count. */
  settle?(asked: Asked): Record<string, number>
}

/**
 * A stand-in for a vendor, which counts as the pages that its preset cites say. A call is `POST` with `model`, `messages` and the vendor's
 * own fields.
 */
export async function startTokenVendor(
  name: keyof typeof VENDORS,
  { limits, windowMs = 60_000, streamMs = 0 }: VendorOptions,
): Promise<TokenVendor> {
  const vendor: Vendor = VENDORS[name]
  const counts = new Map<string, Record<string, Count>>()
  const taken: Record<string, number> = {}
  const state = { refused: 0 }
  const countsOf = (key: string): Record<string, Count> =>
    counts.getOrInsertComputed(key, () =>
      Object.fromEntries(
        Object.entries(limits).map(([unit, size]) => [
          unit,
          name === 'azure-openai' ? new Counter(size, windowMs) : new Bucket(size, windowMs),
        ]),
      ),
    )
  const take = (of: Record<string, Count>, units: Readonly<Record<string, number>>): void => {
    for (const [unit, count] of Object.entries(units)) {
      of[unit]?.take(count)
      taken[unit] = (taken[unit] ?? 0) + count
    }
  }
  const upstream = await startUpstream(async (seen, response) => {
    if (seen.method !== 'POST') return response.writeHead(200, JSON_TYPE).end('{"data":[]}')
    const asked = JSON.parse(seen.body) as Asked
    const of = countsOf(vendor.keyOf(seen, asked))
    const wanted = vendor.estimate(asked)
    const short = Object.keys(wanted).find(
      (unit) => of[unit] !== undefined && of[unit].left < Math.max(1, wanted[unit]!),
    )
    if (short !== undefined) {
      state.refused++
      const { headers, body } = vendor.refusal(short, of, Math.max(1, wanted[short]!))
      return response.writeHead(429, { ...JSON_TYPE, ...vendor.headers(of), ...headers }).end(JSON.stringify(body))
    }
    take(of, wanted)
    const { body, events } = vendor.answer(asked)
    if (asked.stream !== true) {
      take(of, vendor.settle?.(asked) ?? {})
      return response.writeHead(200, { ...JSON_TYPE, ...vendor.headers(of) }).end(JSON.stringify(body))
    }
    response.writeHead(200, { 'content-type': 'text/event-stream', ...vendor.headers(of) })
    await sendEvents(response, events, streamMs)
    take(of, vendor.settle?.(asked) ?? {})
    return response.end()
  })
  return {
    ...upstream,
    counts,
    taken,
    get refused() {
      return state.refused
    },
  }
}

const JSON_TYPE = { 'content-type': 'application/json' }

async function sendEvents(response: ServerResponse, events: readonly object[], streamMs: number): Promise<void> {
  for (const event of events) {
    const { type } = event as { type?: string }
    response.write(`${type === undefined ? '' : `event: ${type}\n`}data: ${JSON.stringify(event)}\n\n`)
    if (streamMs > 0) await sleep(streamMs / events.length)
  }
  if (!('type' in events[0]!)) response.write('data: [DONE]\n\n')
}

/** As `6m0s`, `1.5s` or `20ms`. */
function goDuration(ms: number): string {
  if (ms < 1_000) return `${Math.ceil(ms)}ms`
  const seconds = Math.ceil(ms / 10) / 100
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${Math.ceil(seconds % 60)}s`
}

function rateHeaders(counts: Readonly<Record<string, Count>>): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const [unit, count] of Object.entries(counts)) {
    headers[`x-ratelimit-limit-${unit}`] = `${count.size}`
    headers[`x-ratelimit-remaining-${unit}`] = `${Math.max(0, Math.floor(count.left))}`
    headers[`x-ratelimit-reset-${unit}`] = goDuration(count.msUntil(count.size))
  }
  return headers
}

function chatAnswer(asked: Asked): { body: object; events: object[] } {
  const { input, output } = tokensOf(asked)
  const usage = { prompt_tokens: input, completion_tokens: output, total_tokens: input + output }
  const message = { role: 'assistant', content: 'x '.repeat(output) }
  const common = { id: 'chatcmpl-1', created: 1, model: asked.model }
  const chunk = { ...common, object: 'chat.completion.chunk' }
  const isUsageSent = asked.stream_options?.include_usage === true
  return {
    body: {
      ...common,
      object: 'chat.completion',
      choices: [{ index: 0, message, finish_reason: 'stop' }],
      usage,
    },
    events: [
      { ...chunk, choices: [{ index: 0, delta: message, finish_reason: null }] },
      { ...chunk, choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] },
      ...(isUsageSent ? [{ ...chunk, choices: [], usage }] : []),
    ],
  }
}

const VENDORS = {
  // https://developers.openai.com/api/docs/guides/rate-limits; the text of its refusals is in issues of its users, such as
  // https://github.com/openai/codex/issues/88
  openai: {
    keyOf: (_, { model }) => model,
    estimate: (asked) => ({ requests: 1, tokens: Math.max(asked.max_tokens ?? 0, tokensOf(asked).input) }),
    headers: rateHeaders,
    refusal(unit, counts, wanted) {
      const { size, left } = counts[unit]!
      const ms = Math.ceil(counts[unit]!.msUntil(wanted))
      const message = `Rate limit reached for gpt in organization org-x on ${unit} per min: Limit ${size}, Used ${Math.floor(size - left)}, Requested ${wanted}. Please try again in ${goDuration(ms)}.`
      return {
        headers: { 'retry-after': `${Math.ceil(ms / 1_000)}`, 'retry-after-ms': `${ms}` },
        body: { error: { message, type: unit, param: null, code: 'rate_limit_exceeded' } },
      }
    },
    answer: chatAnswer,
  },
  // https://learn.microsoft.com/azure/ai-foundry/openai/how-to/quota; the text is that of
  // https://github.com/icereed/paperless-gpt/issues/814
  'azure-openai': {
    keyOf: ({ url }, { model }) => /\/deployments\/([^/]+)/.exec(url)?.[1] ?? model,
    estimate: (asked) => ({
      requests: 1,
      tokens: tokensOf(asked).input + (asked.max_tokens ?? 0) * (asked.best_of ?? 1),
    }),
    headers: rateHeaders,
    refusal(unit, counts, wanted) {
      const ms = Math.ceil(counts[unit]!.msUntil(wanted))
      const message = `Your requests to gpt have exceeded the ${unit} rate limit for your current S0 pricing tier. Please retry after ${Math.ceil(ms / 1_000)} seconds.`
      return {
        headers: { 'retry-after': `${Math.ceil(ms / 1_000)}`, 'retry-after-ms': `${ms}` },
        body: { error: { code: '429', message } },
      }
    },
    answer: chatAnswer,
  },
  // https://platform.claude.com/docs/en/api/rate-limits and https://platform.claude.com/docs/en/build-with-claude/streaming
  anthropic: {
    keyOf: (_, { model }) => model,
    estimate: (asked) => ({ requests: 1, 'input-tokens': tokensOf(asked).input, 'output-tokens': 0 }),
    headers(counts) {
      const headers: Record<string, string> = {}
      for (const [unit, count] of Object.entries(counts)) {
        const left = Math.max(0, Math.floor(count.left))
        headers[`anthropic-ratelimit-${unit}-limit`] = `${count.size}`
        headers[`anthropic-ratelimit-${unit}-remaining`] =
          `${unit === 'requests' ? left : Math.round(left / 1_000) * 1_000}`
        headers[`anthropic-ratelimit-${unit}-reset`] = new Date(Date.now() + count.msUntil(count.size)).toISOString()
      }
      return headers
    },
    refusal(unit, counts, wanted) {
      const message = `This request would exceed your organization’s rate limit of ${counts[unit]!.size} ${unit} per minute.`
      return {
        headers: { 'retry-after': `${Math.ceil(counts[unit]!.msUntil(wanted) / 1_000)}` },
        body: { type: 'error', error: { type: 'rate_limit_error', message }, request_id: 'req_1' },
      }
    },
    answer(asked) {
      const { input, output } = tokensOf(asked)
      const cached = { cache_creation_input_tokens: 0, cache_read_input_tokens: 0 }
      const text = 'x '.repeat(output)
      const message = { id: 'msg_1', type: 'message', role: 'assistant', model: asked.model, stop_sequence: null }
      const events = [
        {
          type: 'message_start',
          message: {
            ...message,
            content: [],
            stop_reason: null,
            usage: { input_tokens: input, output_tokens: 1, ...cached },
          },
        },
        { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
        { type: 'ping' },
        { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } },
        { type: 'content_block_stop', index: 0 },
        {
          type: 'message_delta',
          delta: { stop_reason: 'end_turn', stop_sequence: null },
          usage: { output_tokens: output },
        },
        { type: 'message_stop' },
      ]
      const usage = { input_tokens: input, output_tokens: output, ...cached }
      return { body: { ...message, content: [{ type: 'text', text }], stop_reason: 'end_turn', usage }, events }
    },
    settle: (asked) => ({ 'output-tokens': tokensOf(asked).output }),
  },
} satisfies Record<string, Vendor>
