import type { RouteEntry } from '../../routing/route-table.ts'
import type { Preset } from './preset.ts'

/** A limit of tokens counts what the request says. See `openai`. */
const ESTIMATE = {
  reserve: {
    values: { most: { body: ['/max_completion_tokens', '/max_tokens', '/max_output_tokens'], default: 0 } },
    formula: 'max(most, bytes / 4)',
    most: 30_000,
  },
}

/**
 * The OpenAI API. https://developers.openai.com/api/docs/guides/rate-limits, as it was in October 2026, says:
 *
 * - Limits are requests and tokens a minute (for some models a day, too) of an organization or project, and of each model. Their
 *   numbers depend on the model and the usage tier, and stand on the limits page of the account. So set `limits`. Those here are of
 *   gpt-4.1 in tier 1, which users quote: 500 requests and 30,000 tokens.
 * - "Your rate limit is calculated as the maximum of max_tokens and the estimated number of tokens based on the character count of
 *   your request." So a call costs what its request says, and the outcome does not change that. How many characters are taken for a
 *   token is not said; here it is four bytes. The page does not name `max_completion_tokens` and `max_output_tokens`, which took the
 *   place of `max_tokens`.
 * - "Unsuccessful requests contribute to your per-minute limit." So every answer counts.
 * - Headers: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` with resets such as `6m0s`, and Retry-After.
 *
 * Refusals that users quote ("Limit 10000, Used 8554, Requested 3082. Please try again in 9.816s.") come from a bucket that fills up
 * evenly. A window of a minute keeps that, too.
 */
export const openai: Preset = {
  // https://developers.openai.com/api/reference/resources/models/methods/list
  harmlessCall: '/v1/models',
  config: {
    requestIdHeaders: ['x-request-id'],
    url: 'https://api.openai.com',
    limits: {
      tokens: [
        { requests: 500, window: '60s', scope: '/model' },
        { name: 'tokens', requests: 30_000, window: '60s', scope: '/model', cost: ESTIMATE },
      ],
      read: [],
      write: [],
    },
    // The limiter counts a request before it is carried out, by the guide above.
    throttle: { retry: 'any' },
    credentialHeader: 'authorization',
    errors: 'openai',
  },
  routes: () => modelRoutes('/v1'),
}

/**
 * The endpoints that use tokens of a model: https://developers.openai.com/api/reference. Nothing is known to happen twice where
 * numbers or a verdict are computed. A generated answer costs money each time, may be stored and may have called tools. So it is not
 * sent again once it may have begun, but an SDK may do so by itself.
 */
export function modelRoutes(prefix: string): RouteEntry[] {
  const entry = (path: string, retry: 'safe' | 'unsafe'): RouteEntry => {
    return { methods: ['POST'], path: prefix + path, rule: { class: 'tokens', retry } }
  }
  return [
    ...['/embeddings', '/moderations', '/responses/input_tokens'].map((path) => entry(path, 'safe')),
    ...['/chat/completions', '/completions', '/responses', '/responses/compact'].map((path) => entry(path, 'unsafe')),
  ]
}
