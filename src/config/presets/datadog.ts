import { classifyByMethod } from '../../routing/route.ts'
import { posts, type Preset } from './preset.ts'
import { soundsLikeReading } from './words.ts'

/**
 * The Datadog API, of the site datadoghq.com (set `url` for another): https://docs.datadoghq.com/api/latest/rate-limits/, as of 2026-11.
 * The page publishes one number, 250,000 events a minute of an organization, and says that metrics and logs may be sent without a
 * limit. All other limits it leaves to the headers of the answers: `X-RateLimit-Limit`, `-Period` in seconds, `-Remaining`, `-Reset`, and
 * `-Name` for support. These are heeded; to keep such a limit beforehand, write it down for its routes, with `kind: calendar`,
 * because periods are aligned to the calendar. An account here is an organization.
 *
 * Calls that read want a second key in DD-APPLICATION-KEY, which a credential can't add: the client has to send it, or the account
 * gets a token as `Authorization: Bearer`.
 */
export const datadog: Preset = {
  // https://docs.datadoghq.com/api/latest/authentication/#validate-api-key
  harmlessCall: '/api/v1/validate',
  config: {
    requestIdHeaders: ['x-request-id', 'dd-request-id'],
    url: 'https://api.datadoghq.com',
    limits: {
      read: [],
      write: [],
      intake: [],
      event: [{ requests: 250_000, window: '60s', kind: 'calendar' }],
    },
    // The page has the caller wait and send the call again.
    throttle: { retry: 'any' },
    credentialHeader: 'dd-api-key',
    errors: 'datadog',
  },
  routes: () => [...posts(EVENTS, { class: 'event' }), ...posts(INTAKE, { class: 'intake' })],
  classify: (method, path) =>
    method === 'POST' && soundsLikeReading(path) ? { class: 'read' } : classifyByMethod(method),
}

const EVENTS = ['/api/v1/events', '/api/v2/events']
/** Where metrics, checks and logs are sent to. */
const INTAKE = [
  '/api/v1/series',
  '/api/v2/series',
  '/api/v1/distribution_points',
  '/api/v1/check_run',
  '/api/v2/logs',
  '/v1/input',
]
