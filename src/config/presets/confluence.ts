import { isSafeMethod } from '../../routing/route.ts'
import type { RouteEntry } from '../../routing/route-table.ts'
import type { Preset } from './preset.ts'
import { soundsLikeReading } from './words.ts'

const LIMITS = {
  all: [{ requests: 65_000, window: '1h', kind: 'calendar', cost: 'route', scope: 'upstream' }],
  read: [],
  write: [],
}

/**
 * One site of Confluence Cloud: set `url` to it. It counts points, as Jira does
 * (https://developer.atlassian.com/cloud/confluence/rate-limiting/, last updated 2026-02-02): a call costs 1, and 1 for each object that it
 * reads; a write costs 1. That users, groups and permissions cost 2, that an app has 65,000 an hour on all its sites, and
 * that hours begin with the hour (UTC), is taken from the page of Jira, which has the same model; the stored page of Confluence breaks off
 * before it says so. What a list reads is known only afterwards: it is charged as its default page of 25 is. Give the route a `cost`
 * where calls ask for more. Calls with API tokens cost no points: `limitSet: api-token`. Bursts are limited too, but no numbers are
 * published: a 429 says in `RateLimit-Reason` which limit it was, and in `Retry-After` when to come back. `Beta-RateLimit*` headers announce
 * limits that are not enforced, and are not heeded.
 */
export const confluence: Preset = {
  // https://developer.atlassian.com/cloud/confluence/rest/v1/api-group-users/
  harmlessCall: '/wiki/rest/api/user/current',
  config: {
    requestIdHeaders: ['atl-traceid', 'x-arequestid'],
    limits: LIMITS,
    // The limiter refuses requests before they are carried out.
    throttle: { retry: 'any' },
    credentialHeader: 'authorization',
    errors: 'confluence',
  },
  limitSets: { 'api-token': { ...LIMITS, all: [] } },
  proposedCache: [
    { paths: /^\/wiki\/(?:api\/v2\/spaces|rest\/api\/space)(?:\/[^/]+)?$/, rule: { private: true, freshFor: 30_000 } },
  ],
  routes: () => ROUTES,
  classify(method, path) {
    // 1 for the call, and 1 for the one thing that it reads.
    if (isSafeMethod(method)) return { class: 'read', cost: IDENTITIES.test(path) ? 3 : 2 }
    return method === 'POST' && soundsLikeReading(path) ? { class: 'read', cost: 26 } : { class: 'write' }
  },
}

const IDENTITIES = /\/(?:user|users|group|permissions)(?:\/|$)/

/** Lists: 1 for the call, and what the default page reads, of 25 objects or 200 identities at 2 each. */
const LISTS: Readonly<Record<number, readonly string[]>> = {
  26: [
    '/wiki/api/v2/{things}',
    '/wiki/api/v2/{things}/{id}/{parts}',
    '/wiki/rest/api/content',
    '/wiki/rest/api/content/search',
    '/wiki/rest/api/content/{id}/child/{type}',
    '/wiki/rest/api/search',
    '/wiki/rest/api/space',
    '/wiki/rest/api/space/{key}/content',
  ],
  51: ['/wiki/rest/api/search/user'],
  401: ['/wiki/rest/api/group', '/wiki/rest/api/group/{id}/membersByGroupId', '/wiki/rest/api/user/memberof'],
}

const ROUTES: readonly RouteEntry[] = Object.entries(LISTS).flatMap(([cost, paths]) =>
  paths.map((path) => ({ methods: ['GET'], path, rule: { class: 'read', cost: Number(cost) } })),
)
