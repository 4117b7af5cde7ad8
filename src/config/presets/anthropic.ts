import type { Preset } from './preset.ts'

const INPUT = {
  response: {
    // A stream says it in its first event, and in its last ones again.
    values: {
      fresh: { body: ['/usage/input_tokens', '/message/usage/input_tokens'] },
      written: {
        body: ['/usage/cache_creation_input_tokens', '/message/usage/cache_creation_input_tokens'],
        default: 0,
      },
    },
    formula: 'fresh + written',
  },
  reserve: { formula: 'bytes / 3', most: 200_000 },
}

const OUTPUT = {
  response: { values: { output: { body: ['/usage/output_tokens', '/message/usage/output_tokens'] } } },
  reserve: { missRate: '1%', most: 32_000 },
}

/** The limits of each model, in each minute. */
const limitsOf = (requests: number, input: number, output: number): object => ({
  messages: [
    { requests, window: '60s', scope: '/model' },
    { name: 'input-tokens', requests: input, window: '60s', scope: '/model', cost: INPUT },
    {
      name: 'output-tokens',
      requests: output,
      window: '60s',
      scope: '/model',
      cost: OUTPUT,
      counts: { except: ['4xx', '5xx'] },
    },
  ],
  batches: [{ requests, window: '60s' }],
  read: [],
  write: [],
})

/**
 * The Claude API. https://platform.claude.com/docs/en/api/rate-limits, as it was in October 2026, says:
 *
 * - Limits are requests, input tokens and output tokens a minute, of an organization and of each model. They depend on the usage tier.
 *   Those here are of most models in the tier Start, and by `limitSet: scale` of those in the tier Scale. Fable models have less, and
 *   the versions of Opus 4.x share one limit, as those of Sonnet 4.x do, while here each name has its own. So look at the limits page.
 * - Input tokens are "estimated at the beginning of each request", and then it counts what they were: `input_tokens` and
 *   `cache_creation_input_tokens`, not what was read from a cache.
 * - Output tokens count "as output tokens are produced, counting only the actual tokens generated"; "the max_tokens parameter does not
 *   factor in". So a call reserves what is learned to be enough for 99 in 100 calls of its route and client, and settles at its end.
 *   With `reserve: { values: { most: { body: /max_tokens } }, most: 32000 }` the limit is never exceeded, but less of it is used.
 *   An answer that is an error has produced none. Before 2026 the page said that `max_tokens` is reserved.
 * - A bucket fills up evenly, which a window of a minute keeps, too. A sharp rise of use may be refused all the same.
 * - Batches have a limit of requests of their own, over all models.
 * - Headers: `anthropic-ratelimit-{requests,input-tokens,output-tokens}-{limit,remaining,reset}` with resets in RFC 3339, and
 *   `retry-after`.
 *
 * Clients send `anthropic-version` themselves: https://platform.claude.com/docs/en/api/versioning.
 */
export const anthropic: Preset = {
  // https://platform.claude.com/docs/en/api/models/list
  harmlessCall: '/v1/models',
  harmlessHeaders: { 'anthropic-version': '2023-06-01' },
  config: {
    requestIdHeaders: ['request-id'],
    url: 'https://api.anthropic.com',
    limits: limitsOf(1_000, 2_000_000, 400_000) as Preset['config']['limits'],
    // "A 429 error describing which rate limit was exceeded" is the answer to a request that was not begun. An error that comes while a
    // stream runs is an event of it: https://platform.claude.com/docs/en/api/errors
    throttle: { retry: 'any' },
    credentialHeader: 'x-api-key',
    // 529 is an API that is overloaded by all its users, not by this account: https://platform.claude.com/docs/en/api/errors
    retry: { statuses: [429, 500, 502, 503, 504, 529] },
    errors: 'anthropic',
  },
  limitSets: { scale: limitsOf(10_000, 10_000_000, 2_000_000) as Preset['config']['limits'] },
  routes: () => [
    // It may have called tools of others, and costs money each time. So it is not sent again once it may have begun.
    { methods: ['POST'], path: '/v1/messages', rule: { class: 'messages', retry: 'unsafe' } },
    // "Subject to requests per minute rate limits", which are not those of messages:
    // https://platform.claude.com/docs/en/build-with-claude/token-counting
    { methods: ['POST'], path: '/v1/messages/count_tokens', rule: { class: 'read', retry: 'safe' } },
    { path: '/v1/messages/batches', rule: { class: 'batches' } },
    { path: '/v1/messages/batches/*', rule: { class: 'batches' } },
  ],
}
