import type { RouteEntry } from '../../routing/route-table.ts'
import type { Preset } from './preset.ts'

/** A limit of each user. Here each token counts as a user, so use only one token of a user. */
const perUser = (requests: number, window: string): object => ({ requests, window, scope: 'credential' })
/** A limit of each user on each route. */
const perRoute = (requests: number, window: string): object => ({ requests, window, scope: ['credential', 'route'] })

const LIMITS = {
  // "All traffic from an IP address", and "authenticated API traffic for a user"
  all: [{ requests: 2_000, window: '60s', scope: 'upstream' }, perUser(2_000, '60s')],
  read: [],
  write: [],
  search: [perUser(100, '60s')],
  projects: [perUser(2_000, '10m')],
  groups: [perUser(50, '60s')],
  one: [perRoute(400, '60s')],
  'group-projects': [perUser(600, '60s')],
  members: [perUser(200, '60s')],
  user: [perUser(300, '10m')],
  'user-projects': [perUser(300, '60s')],
  'user-lists': [perRoute(100, '60s')],
  issue: [perUser(200, '60s')],
  note: [perUser(60, '60s')],
  pipeline: [{ requests: 25, window: '60s', scope: ['credential', '{id}'] }],
  create: [perRoute(200, '24h')],
}

/** With the limits that come with the plans, which are announced: so many a minute, and an hour. */
function plan(minute: number, hour: number): Preset['config']['limits'] {
  return { ...LIMITS, all: [...LIMITS.all.slice(0, 1), perUser(minute, '60s'), perUser(hour, '1h')] }
}

/**
 * The REST API of GitLab.com: https://docs.gitlab.com/user/gitlab_com/rate_limits/, as of 2026-11. An installation of your own has
 * what its operator set: set `url` and `limits`. The page has limits of single endpoints besides those that are known here: they
 * are learned from 429s. `limitSet: free`, `premium` or `ultimate` adds the limits by plan, which the page proposes and says are not
 * in effect yet.
 *
 * Answers tell what remains in `RateLimit-*`, but only of the limits in front of the application, as
 * https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers says: a 429 may come although they say that enough
 * remains. A 429 has `Retry-After`.
 */
export const gitlab: Preset = {
  // https://docs.gitlab.com/api/users/#retrieve-the-current-user
  harmlessCall: '/user',
  config: {
    requestIdHeaders: ['x-request-id', 'x-gitlab-meta'],
    url: 'https://gitlab.com/api/v4',
    limits: LIMITS,
    // Both limiters refuse a request before it is carried out: a middleware in front of the application, and a check at its entry.
    throttle: { retry: 'any' },
    credentialHeader: 'authorization',
    errors: 'gitlab',
  },
  limitSets: { current: LIMITS, free: plan(100, 5_000), premium: plan(1_250, 15_000), ultimate: plan(2_000, 25_000) },
  // GitLab has an ETag for most of its answers. They are one user's.
  proposedCache: [{ paths: /^\/(?:projects|groups|users)(?:\/|$)/, rule: { private: true } }],
  routes: () => ROUTES,
}

const READS = {
  search: ['/search', '/projects/{id}/search', '/groups/{id}/search'],
  projects: ['/projects'],
  groups: ['/groups'],
  one: ['/projects/{id}', '/groups/{id}'],
  'group-projects': ['/groups/{id}/projects'],
  members: ['/projects/{id}/members', '/projects/{id}/members/all'],
  user: ['/users/{id}'],
  'user-projects': ['/users/{id}/projects'],
  'user-lists': [
    'followers',
    'following',
    'contributed_projects',
    'starred_projects',
    'status',
    'keys',
    'gpg_keys',
  ].map((what) => `/users/{id}/${what}`),
}

const CREATIONS = {
  issue: ['/projects/{id}/issues'],
  note: ['/projects/{id}/issues/{iid}/notes', '/projects/{id}/merge_requests/{iid}/notes'],
  pipeline: ['/projects/{id}/pipeline', '/projects/{id}/trigger/pipeline'],
  create: ['/projects', '/groups'],
}

const ROUTES: readonly RouteEntry[] = [...entries('GET', READS), ...entries('POST', CREATIONS)]

function entries(method: string, paths: Readonly<Record<string, readonly string[]>>): RouteEntry[] {
  return Object.entries(paths).flatMap(([name, all]) =>
    all.map((path) => ({ methods: [method], path, rule: { class: name } })),
  )
}
