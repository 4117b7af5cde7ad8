import { type Guess, isSafeMethod, type RouteRule, withSafeReadingPosts } from '../../routing/route.ts'
import type { RouteEntry } from '../../routing/route-table.ts'
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
 * - so many calls a second of each endpoint and method, over all users of the site. Endpoints that are not listed below
 *   share one, by method; those that the page lets have more are held to the default.
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
  routes: () => ENDPOINTS.trim().split('\n').flatMap(readLine),
  classify(method, path) {
    const isIssue = ISSUE.test(path)
    const counted = isIssue ? { countedAs: `${method} ${ANY_OF_ISSUE}` } : {}
    return { ...ruleOf(method, isIssue, isSafeMethod(method) ? ONE : 1), ...counted }
  },
}

const ISSUE = /^\/rest\/api\/[^/]+\/issue\/[^/]+(?:\/|$)/
const ANY_OF_ISSUE = '/rest/api/{version}/issue/{issueIdOrKey}/*'

/** Points of a GET: 1 for itself, and those of one thing, or of a page of things. */
const ONE = 2
const PAGE = 51
const USER = 3
const USERS = 101

/**
 * A path below /rest, and its methods. Behind a GET, or a POST that reads, stands what it reads unless that is one
 * thing: a page, a user, or users.
 */
const ENDPOINTS = `
/api/{version}/issue POST
/api/{version}/issue/bulk POST
/api/{version}/issue/bulkfetch POST:page
/api/{version}/issue/picker GET:page
/api/{version}/issue/{issueIdOrKey} GET PUT DELETE
/api/{version}/issue/{issueIdOrKey}/assignee PUT
/api/{version}/issue/{issueIdOrKey}/attachments POST
/api/{version}/issue/{issueIdOrKey}/changelog GET:page
/api/{version}/issue/{issueIdOrKey}/comment GET:page POST
/api/{version}/issue/{issueIdOrKey}/comment/{id} GET PUT DELETE
/api/{version}/issue/{issueIdOrKey}/editmeta GET
/api/{version}/issue/{issueIdOrKey}/properties/{propertyKey} GET PUT DELETE
/api/{version}/issue/{issueIdOrKey}/remotelink GET:page POST DELETE
/api/{version}/issue/{issueIdOrKey}/remotelink/{linkId} GET PUT DELETE
/api/{version}/issue/{issueIdOrKey}/transitions GET:page POST
/api/{version}/issue/{issueIdOrKey}/votes GET:users POST DELETE
/api/{version}/issue/{issueIdOrKey}/watchers GET:users POST DELETE
/api/{version}/issue/{issueIdOrKey}/worklog GET:page POST
/api/{version}/issue/{issueIdOrKey}/worklog/{id} GET PUT DELETE
/api/{version}/issueLink POST
/api/{version}/issueLink/{linkId} GET DELETE
/api/{version}/search GET:page POST:page
/api/{version}/search/jql GET:page POST:page
/api/{version}/search/approximate-count POST:one
/api/{version}/jql/parse POST:one
/api/{version}/expression/evaluate POST:one
/api/{version}/project GET:page POST
/api/{version}/project/search GET:page
/api/{version}/project/{projectIdOrKey} GET PUT DELETE
/api/{version}/project/{projectIdOrKey}/components GET:page
/api/{version}/project/{projectIdOrKey}/statuses GET:page
/api/{version}/project/{projectIdOrKey}/versions GET:page
/api/{version}/project/{projectIdOrKey}/role GET:users
/api/{version}/project/{projectIdOrKey}/role/{id} GET:users POST PUT DELETE
/api/{version}/component POST
/api/{version}/component/{id} GET PUT DELETE
/api/{version}/version POST
/api/{version}/version/{id} GET PUT DELETE
/api/{version}/attachment/{id} GET DELETE
/api/{version}/attachment/content/{id} GET
/api/{version}/dashboard GET:page POST
/api/{version}/dashboard/search GET:page
/api/{version}/dashboard/{id} GET PUT DELETE
/api/{version}/field GET:page POST
/api/{version}/field/search GET:page
/api/{version}/filter POST
/api/{version}/filter/search GET:page
/api/{version}/filter/{id} GET PUT DELETE
/api/{version}/issuetype GET:page POST
/api/{version}/priority GET:page
/api/{version}/status GET:page
/api/{version}/statuses/search GET:page
/api/{version}/label GET:page
/api/{version}/serverInfo GET
/api/{version}/webhook GET:page POST DELETE
/api/{version}/myself GET:user
/api/{version}/mypermissions GET:users
/api/{version}/permissions GET:users
/api/{version}/user GET:user POST DELETE
/api/{version}/user/bulk GET:users
/api/{version}/user/search GET:users
/api/{version}/user/assignable/search GET:users
/api/{version}/users/search GET:users
/api/{version}/group GET:user POST DELETE
/api/{version}/group/bulk GET:users
/api/{version}/group/member GET:users
/api/{version}/groups/picker GET:users
/agile/1.0/board GET:page POST
/agile/1.0/board/{boardId} GET DELETE
/agile/1.0/board/{boardId}/issue GET:page
/agile/1.0/board/{boardId}/sprint GET:page
/agile/1.0/sprint POST
/agile/1.0/sprint/{sprintId} GET PUT POST DELETE
/agile/1.0/sprint/{sprintId}/issue GET:page POST
/servicedeskapi/servicedesk/{serviceDeskId}/customer GET:users POST DELETE
`

const POINTS: Readonly<Record<string, number>> = { one: ONE, page: PAGE, user: USER, users: USERS }

function readLine(line: string): RouteEntry[] {
  const [path = '', ...operations] = line.split(' ')
  return operations.map((operation) => {
    const [method = '', reads = method === 'GET' ? 'one' : ''] = operation.split(':')
    const rule: RouteRule = withSafeReadingPosts(
      ruleOf(method, path.includes('{issueIdOrKey}'), POINTS[reads] ?? 1),
      method,
    )
    const isCustomers = method === 'GET' && path.endsWith('/customer')
    return { methods: [method], path: `/rest${path}`, rule: isCustomers ? { ...rule, charges: ['customers'] } : rule }
  })
}

/** A POST that costs more than a write reads. */
function ruleOf(method: string, isOfIssue: boolean, cost: number): Guess {
  if (isSafeMethod(method) || cost > 1) return { class: 'read', cost }
  return { class: 'write', cost, ...(isOfIssue ? { charges: ['write', 'issue'] } : {}) }
}
