import type { Preset } from './preset.ts'

/**
 * The Cloudflare API: 1,200 requests in five minutes for each user or account token, and 200 a second from one address:
 * https://developers.cloudflare.com/fundamentals/api/reference/limits/. Whoever exceeds the first is blocked for five
 * minutes. GraphQL has a limit of its own, 300 in five minutes, by
 * https://developers.cloudflare.com/analytics/graphql-api/limits/; the first page says that it "varies by query cost", and is never
 * more than 320. All tokens of one user are one credential to Cloudflare but several here, so use only one of them.
 */
export const cloudflare: Preset = {
  // https://developers.cloudflare.com/api/resources/user/subresources/tokens/methods/verify/
  harmlessCall: '/user/tokens/verify',
  config: {
    requestIdHeaders: ['cf-ray'],
    url: 'https://api.cloudflare.com/client/v4',
    limits: {
      all: [
        { requests: 1200, window: '5m', scope: 'credential' },
        { requests: 200, window: '1s', scope: 'upstream' },
      ],
      read: [],
      write: [],
      graphql: [{ requests: 300, window: '5m', scope: 'credential' }],
    },
    // The limiter refuses requests before they are carried out: https://developers.cloudflare.com/fundamentals/api/reference/limits/
    throttle: { retry: 'any' },
    credentialHeader: 'authorization',
    // Statuses above 504 are Cloudflare's own:
    // https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/
    retry: { statuses: [429, 500, 502, 503, 504, 520, 521, 522, 523, 524] },
    errors: 'cloudflare',
  },
  proposedCache: [{ paths: /^\/(?:accounts|user|zones)(?:\/[^/]+)?$/, rule: { private: true, freshFor: 30_000 } }],
  // Cloudflare's GraphQL has no mutations: https://developers.cloudflare.com/analytics/graphql-api/
  routes: () => [{ path: '/graphql', rule: { class: 'graphql', retry: 'safe' } }],
}
