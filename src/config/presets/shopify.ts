import type { Preset } from './preset.ts'

/** Both buckets of every plan leak whole in so many seconds. */
const LEAK = '20s'
/** No single query may cost more: https://shopify.dev/docs/api/usage/limits, as it is quoted since 2019. */
const DEAREST_QUERY = 1_000

/** The limits of a plan, by what leaks out of its buckets in a second. */
function plan(points: number, calls: number): Preset['config']['limits'] {
  const rest = { requests: calls * 20, window: LEAK, scope: 'credential' }
  const graphql = {
    requests: points * 20,
    window: LEAK,
    scope: 'credential',
    cost: {
      response: {
        values: { cost: { body: ['/extensions/cost/actualQueryCost', '/extensions/cost/requestedQueryCost'] } },
      },
      reserve: DEAREST_QUERY,
    },
  }
  return { graphql: [graphql], rest: [rest], read: [], write: [], storefront: [] }
}

/**
 * One store of the Shopify Admin API: set `url` to it. Limits apply to an app in a store, which is a token. As of
 * 2026-11, https://shopify.dev/docs/apps/build/apis/graphql-admin/rate-limits has the points a second of each plan, and
 * https://shopify.dev/docs/api/admin-rest/usage/rate-limits the calls. `limitSet` chooses the plan.
 *
 * Both are leaky buckets, of size B and with a leak of r a second. Kept here is B in any B / r seconds. That is never looser: of what is
 * sent in k + 1 windows, at most (k + 1) B, k B has leaked by then. In the long run nothing is lost, since B in B / r is r a
 * second; but what was sent in a burst comes back together, when the window is over. That B is 20 r goes by the answers that others
 * quote (`maximumAvailable: 2000`, `restoreRate: 100`), and by 40 calls at 2 a second.
 *
 * The bucket must have room for the requested cost of a query before it runs, and gets back what it did not cost:
 * https://help.shopify.com/en/api/graphql-admin-api/call-limit. The requested cost is not known here beforehand, so that of the dearest query
 * is reserved, and a query is sent only while so much is free: of 2,000 points half can be used, of 20,000 95 %. If your queries
 * cost less, set `reserve` to your dearest one. A learned reserve is of actual costs: Shopify would refuse queries that request more.
 * The page does not say whether an error costs: one without a cost keeps what was reserved.
 */
export const shopify: Preset = {
  // https://shopify.dev/docs/api/admin-rest/latest/resources/accessscope
  harmlessCall: '/admin/oauth/access_scopes.json',
  config: {
    requestIdHeaders: ['x-request-id'],
    limits: plan(100, 2),
    // A query of which the cost does not fit is not run. That it is answered by 200 and this code goes by what others quote of
    // https://shopify.dev/docs/api/admin-graphql#status_and_error_codes. Calls of REST get a 429, with Retry-After.
    throttle: {
      retry: 'any',
      when: [{ status: 200, classes: ['graphql'], body: { '/errors/*/extensions/code': 'THROTTLED' } }],
    },
    credentialHeader: 'x-shopify-access-token',
    errors: 'shopify',
  },
  limitSets: { standard: plan(100, 2), advanced: plan(200, 4), plus: plan(1_000, 20), enterprise: plan(2_000, 40) },
  routes: () => [
    // A query and a mutation look alike, so none is safe to repeat.
    { methods: ['POST'], path: '/admin/api/{version}/graphql.json', rule: { class: 'graphql' } },
    // It has no limits of this sort: https://shopify.dev/docs/api/usage/limits
    { methods: ['POST'], path: '/api/{version}/graphql.json', rule: { class: 'storefront' } },
    { methods: ['GET'], path: '/admin/api/*', rule: { class: 'read', charges: ['read', 'rest'] } },
    {
      methods: ['POST', 'PUT', 'PATCH', 'DELETE'],
      path: '/admin/api/*',
      rule: { class: 'write', charges: ['write', 'rest'] },
    },
  ],
}
