import { classifyByMethod } from '../../routing/route.ts'
import { posts, type Preset } from './preset.ts'
import { soundsLikeReading } from './words.ts'

/**
 * So many in 10 seconds of an app, and a day of an account. 24 hours in a row are never looser than a day from midnight to
 * midnight. Searches have a limit of their own.
 */
function tier(burst: number, day?: number): Preset['config']['limits'] {
  const daily = day === undefined ? [] : [{ requests: day, window: '24h' }]
  return {
    all: [{ requests: burst, window: '10s', scope: 'credential' }, ...daily],
    read: [],
    write: [],
    search: [{ requests: 5, window: '1s' }],
  }
}

const SEARCH = { class: 'search', charges: ['search', 'read'], retry: 'safe' } as const

/**
 * The HubSpot API: https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines, with the numbers of
 * https://developers.hubspot.com/changelog/increasing-our-api-limits (September 2024), as of 2026-11. An account here is an account
 * there; a credential is an app. `limitSet` chooses the subscription: `starter` (also of free accounts, the default), `professional`,
 * `enterprise`, either with a capacity pack (`professional-pack`, `enterprise-pack`), or `oauth` for public apps, which have no limit
 * a day.
 *
 * The day ends at midnight of the account's time zone, which is not known here. With `window: day` and your `timezone` in place of
 * `24h` calls do not wait for what was used the evening before. Whether a search also counts as one of the ten seconds the page
 * leaves open for private apps: it is counted. The 110 of public apps, and that searches say nothing of limits in
 * their headers, go by what others quote.
 */
export const hubspot: Preset = {
  // https://developers.hubspot.com/docs/api-reference/legacy/account/account-information/get-account-details
  harmlessCall: '/account-info/v3/details',
  config: {
    requestIdHeaders: ['x-hubspot-correlation-id'],
    url: 'https://api.hubapi.com',
    limits: tier(100, 250_000),
    // A 429 names its limit as `policyName` (TEN_SECONDLY_ROLLING, SECONDLY, DAILY), mostly without Retry-After. What remains of the
    // ten seconds, and of the day, is in X-HubSpot-RateLimit-*. The limiter refuses requests before they are carried out.
    throttle: { pause: '1s', retry: 'any' },
    credentialHeader: 'authorization',
    errors: 'hubspot',
  },
  limitSets: {
    starter: tier(100, 250_000),
    professional: tier(190, 650_000),
    enterprise: tier(190, 1_000_000),
    'professional-pack': tier(250, 1_650_000),
    'enterprise-pack': tier(250, 2_000_000),
    oauth: tier(110),
  },
  // https://developers.hubspot.com/docs/api-reference/search/guide and the guides of batches
  routes: () => [
    ...posts(['/crm/{version}/objects/{type}/search'], SEARCH),
    ...posts(['/crm/{version}/objects/{type}/batch/read'], { class: 'read', retry: 'safe' }),
    ...posts(['/crm/{version}/lists/search'], SEARCH),
  ],
  classify(method, path) {
    if (method === 'POST' && /^\/crm\/.+\/search$/.test(path)) return { class: 'search', charges: ['search', 'read'] }
    if (method === 'POST' && (soundsLikeReading(path) || path.endsWith('/batch/read'))) return { class: 'read' }
    return classifyByMethod(method)
  },
}
