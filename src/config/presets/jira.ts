import { readFileSync } from 'node:fs'
import { isSafeMethod, withSafeReadingPosts } from '../../routing/route.ts'
import { parseRouteFile } from '../../routing/route-file.ts'
import type { Preset } from './preset.ts'

/** The default of each endpoint, by method: 100 for GET and POST, 50 for all others. */
const BURSTS = {
  requests: 100,
  window: '1s',
  scope: ['upstream', 'route'],
  cost: { GET: 1, POST: 1, default: 2 },
}
const LIMITS = {
  read: [],
  write: [],
  issue: [
    { requests: 20, window: '2s', scope: ['upstream', '{issueIdOrKey}'] },
    { requests: 100, window: '30s', scope: ['upstream', '{issueIdOrKey}'] },
  ],
  customers: [{ requests: 5, window: '1s', scope: 'upstream' }],
}

/**
 * One site of Jira Cloud: set `url` to it. It keeps three sorts of limits at once, as
 * https://developer.atlassian.com/cloud/jira/platform/rate-limiting/ publishes them:
 *
 * - 65,000 points an hour, from full hour to full hour (UTC), of an app on all its sites. Calls made with API tokens are
 *   exempt: `limitSet: api-token` leaves it out. A call costs 1 and what it reads: 1 for each issue, project and the like,
 *   2 for each user, group, role and permission. That is known only afterwards, so a list is charged as its default page
 *   is: give the route a `cost` where calls ask for more. Writes cost 1.
 * - so many calls a second of each endpoint and method, over all users of the site. Endpoints that jira.routes does not
 *   list share one, by method; those that the page lets have more are held to the default.
 * - 20 writes in 2 s and 100 in 30 s of one issue. An issue that is named by id and by key counts as two.
 */
export const jira: Preset = {
  // https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-myself/
  harmlessCall: '/rest/api/3/myself',
  config: {
    requestIdHeaders: ['atl-traceid', 'x-arequestid'],
    limits: {
      all: [{ requests: 65_000, window: '1h', kind: 'calendar', cost: 'route', scope: 'upstream' }, BURSTS],
      ...LIMITS,
    },
    // The limiter refuses requests before they are carried out: https://developer.atlassian.com/cloud/jira/platform/rate-limiting/
    throttle: { retry: 'any' },
    credentialHeader: 'authorization',
    errors: 'jira',
  },
  proposedCache: [
    {
      paths: /^\/rest\/api\/[23]\/(?:field|issuetype|priority|resolution|serverInfo|status|statuscategory)(?:\/|$)/,
      rule: { private: true, freshFor: 60_000 },
    },
    { paths: /^\/rest\/api\/[23]\/project(?:\/[^/]+)?$/, rule: { private: true, freshFor: 30_000 } },
  ],
  limitSets: { 'api-token': { all: [BURSTS], ...LIMITS } },
  routes: () =>
    parseRouteFile(readFileSync(new URL('jira.routes', import.meta.url), 'utf8'), (rule, method, path) => {
      const isCustomers = method === 'GET' && path.endsWith('/customer')
      return isCustomers ? { ...rule, charges: ['customers'] } : withSafeReadingPosts(rule, method)
    }),
  classify(method, path) {
    // A GET costs 1 for itself, and 1 for the one thing that it reads.
    const guess = isSafeMethod(method) ? { class: 'read', cost: 2 } : { class: 'write' }
    if (!ISSUE.test(path)) return guess
    const charges = guess.class === 'write' ? { charges: ['write', 'issue'] } : {}
    return { ...guess, ...charges, countedAs: `${method} /rest/api/{version}/issue/{issueIdOrKey}/*` }
  },
}

const ISSUE = /^\/rest\/api\/[^/]+\/issue\/[^/]+(?:\/|$)/
