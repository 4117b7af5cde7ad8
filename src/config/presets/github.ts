import { isSafeMethod } from '../../routing/route.ts'
import { posts, type Preset } from './preset.ts'

/**
 * The GitHub REST API, and GraphQL. Limits apply to a user or app, which is a credential here:
 * https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api, and for searches
 * https://docs.github.com/en/rest/search/search#rate-limit. The points of a minute are "of a single endpoint", but the
 * page does not say what one endpoint is, so they are counted over all endpoints here.
 *
 * Only the answer to a GraphQL query says what it costs: each is charged as a mutation by the minute, and 1 by the
 * hour.
 */
export const github: Preset = {
  // https://docs.github.com/en/rest/rate-limit/rate-limit: it counts against no limit
  harmlessCall: '/rate_limit',
  config: {
    requestIdHeaders: ['x-github-request-id'],
    url: 'https://api.github.com',
    limits: {
      // REST and GraphQL share it.
      all: [{ concurrent: 100, scope: 'credential' }],
      rest: [
        // "Making a conditional request does not count against your primary rate limit if a 304 response is returned", of
        // authenticated requests, which all are here (read 2026-11 in the source of the page, repository github/docs):
        // https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
        { requests: 5000, window: '1h', scope: 'credential', counts: { except: [304] } },
        { requests: 900, window: '60s', scope: 'credential', cost: { GET: 1, HEAD: 1, OPTIONS: 1, default: 5 } },
      ],
      read: [],
      write: [],
      create: [
        { requests: 80, window: '60s', scope: 'credential' },
        { requests: 500, window: '1h', scope: 'credential' },
      ],
      search: [{ requests: 30, window: '60s', scope: 'credential' }],
      'code-search': [{ requests: 10, window: '60s', scope: 'credential' }],
      graphql: [
        { requests: 5000, window: '1h', scope: 'credential' },
        { requests: 2000, window: '60s', scope: 'credential', cost: 5 },
      ],
    },
    // A secondary limit that states no time wants a pause of at least a minute. Both limits refuse a request before it
    // is carried out:
    // https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#handle-rate-limit-errors-appropriately
    // GraphQL answers 200 with an error when a limit is exceeded, the secondary one also 403 (read 2026-11 likewise):
    // https://docs.github.com/en/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api#exceeding-the-rate-limit
    // The page does not say how the error looks. By reports of users its type is RATE_LIMITED, in some answers RATE_LIMIT; one
    // that has only a message passes as it is.
    throttle: {
      statuses: [403, 429],
      when: [{ status: 200, classes: ['graphql'], body: { '/errors/*/type': ['RATE_LIMITED', 'RATE_LIMIT'] } }],
      pause: '60s',
      retry: 'any',
    },
    credentialHeader: 'authorization',
    errors: 'github',
  },
  // GitHub states how long its answers are fresh, for one user, and has an ETag for nearly all of them.
  proposedCache: [{ paths: /^\/(?!rate_limit$)/, rule: { private: true } }],
  routes: () => posts(['/markdown', '/markdown/raw'], { class: 'read', charges: ['rest'], retry: 'safe' }),
  classify(method, path) {
    if (path === '/graphql') return { class: 'graphql' }
    const className = classOf(method, path)
    const own = className === 'read' || className === 'write' ? [] : [className]
    return { class: className, charges: [...own, 'rest'] }
  },
}

/** POSTs that start, stop or hand out something, but write nothing that can be read. */
const ACTIONS =
  /^\/(?:app|applications)\/|\/(?:access_tokens|cancel|dispatches|force-cancel|generate-jitconfig|pings|registration-token|remove-token|rerun|rerun-failed-jobs|tests)$/

function classOf(method: string, path: string): string {
  if (isSafeMethod(method))
    return path === '/search/code' ? 'code-search' : path.startsWith('/search/') ? 'search' : 'read'
  const isCreation = (method === 'POST' && !ACTIONS.test(path)) || (method === 'PUT' && path.includes('/contents/'))
  return isCreation ? 'create' : 'write'
}
