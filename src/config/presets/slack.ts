import { readFileSync } from 'node:fs'
import { parseRouteFile } from '../../routing/route-file.ts'
import type { Preset } from './preset.ts'

/**
 * Calls a minute for each method, by tier. The page says "1+" and so on: Slack may or may not tolerate bursts above
 * that.
 */
const PER_MINUTE = { tier1: 1, tier2: 20, tier3: 50, tier4: 100 }

/**
 * The Slack Web API. Limits apply to each method, app and workspace, so an account is one token of one app in one
 * workspace: https://docs.slack.dev/apis/web-api/rate-limits. The tier of a method is on its page under
 * https://docs.slack.dev/reference/methods. Methods that are not listed share one allowance of tier 2, which most
 * methods have.
 *
 * `chat.postMessage` allows about one message a second and channel, and some hundreds a minute in the workspace. The
 * channel is in the body, which is not read here, so the limit is one a second in all: raise it if you write to many
 * channels. An app that is sold outside the Slack Marketplace has tier 1 for `conversations.history` and `.replies`.
 *
 * Every method can be called by GET and by POST, so its name decides whether a call may be retried.
 */
export const slack: Preset = {
  // https://docs.slack.dev/reference/methods/auth.test
  harmlessCall: '/auth.test',
  config: {
    requestIdHeaders: ['x-slack-req-id'],
    url: 'https://slack.com/api',
    limits: {
      ...Object.fromEntries(
        Object.entries(PER_MINUTE).map(([tier, requests]) => [tier, [{ requests, window: '60s', scope: 'route' }]]),
      ),
      message: [{ requests: 1, window: '1s', scope: 'route' }],
    },
    // Above a limit Slack answers 429 with Retry-After: https://docs.slack.dev/apis/web-api/rate-limits (its sentence was read in
    // 2026-11 in the vendor's archived repository slackhq/slack-api-docs). That a refused call has done nothing is not written there; it
    // follows from "until you can retry". Errors of the Web API come with 200 and `ok: false`:
    // https://docs.slack.dev/apis/web-api/#evaluating-responses. Two of them are about rates: the pages of methods list
    // `rate_limited` ("Application has posted too many messages"), and `ratelimited` is what answers have.
    throttle: {
      retry: 'any',
      when: [{ status: 200, body: { '/ok': false, '/error': ['ratelimited', 'rate_limited'] } }],
    },
    credentialHeader: 'authorization',
    errors: 'slack',
  },
  routes: () =>
    parseRouteFile(readFileSync(new URL('slack.routes', import.meta.url), 'utf8'), (rule, _, path) => {
      return { ...rule, retry: READING.test(path.slice(1)) ? 'safe' : 'unsafe' }
    }),
  // A method that is not listed may change something, whatever its name, and by GET, too.
  classify: () => ({ class: 'tier2', retry: 'unsafe', countedAs: '*' }),
}

/** The last words of methods that change nothing. */
const READING =
  /(?:^|\.)(?:list[A-Za-z]*|get(?!UploadURL)[A-Za-z]*|lookup[A-Za-z]*|info|teamInfo|userInfo|history|replies|members|conversations|search|identity|test|validate|accessLogs|billableInfo|integrationLogs)$|^search\./
