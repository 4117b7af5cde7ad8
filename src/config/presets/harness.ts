import { readFileSync } from 'node:fs'
import {
  classifyByMethod,
  type Guess,
  isSafeMethod,
  type RouteRule,
  withSafeReadingPosts,
} from '../../routing/route.ts'
import { parseRouteFile, segmentsNamed } from '../../routing/route-file.ts'
import type { Classify } from '../../routing/route-table.ts'
import type { Preset } from './preset.ts'
import { READING_WORDS, type ReadingWords, soundsLikeChanging, soundsLikeReading } from './words.ts'

/** Per account and rolling minute. */
const LIMITS = {
  read: [{ requests: 1000, window: '60s' }],
  write: [{ requests: 300, window: '60s' }],
  template: [{ requests: 100, window: '60s' }],
  webhook: [{ requests: 500, window: '60s' }],
}

/**
 * The limits of https://developer.harness.io/docs/platform/rate-limits: per address of the caller, per API key, and per
 * key for the external API. The page does not say which calls are of the external API: here all calls with the key are,
 * so that no more than 400 a minute pass. It does not say either by what requests of more than 500,000 characters are
 * counted: here by address and in bytes, of which there are never fewer than characters. Its 429s have no Retry-After.
 */
const PUBLISHED_LIMITS = {
  all: [
    { requests: 5000, window: '10s', scope: 'upstream' },
    { requests: 1, window: '10s', scope: 'upstream', when: { bodyOver: 500_000 } },
    { requests: 1000, window: '60s', scope: 'credential' },
    { name: 'external', requests: 400, window: '60s', scope: 'credential' },
  ],
  read: [],
  write: [],
  template: [],
  webhook: [],
}

/** Where a POST asks: services whose POSTs contain a question, and collections that are listed so. Beginnings of expressions. */
export const ASKED_BY_POST: readonly string[] = [
  'query-service/',
  'schema-service/',
  'sei/',
  'gratis/sei/',
  'ccm/api/anomaly(?:/|$)',
  'ccm/api/costdetails/',
  // Over all agents; below an agent a POST creates.
  'gitops/api/v1/(?!agents$)[a-z]+$',
  'gitops/api/v1/dashboard/',
  // The parts of artifacts.
  'ssca-manager/.*/(?!remediations$)[a-z-]+[^s/]s$',
]

/** The Harness Platform API. */
export const harness: Preset = {
  // https://apidocs.harness.io/tag/User#operation/getCurrentUserInfo
  harmlessCall: '/ng/api/user/currentUser',
  config: {
    requestIdHeaders: ['x-request-id', 'x-correlation-id', 'x-cloud-trace-context'],
    url: 'https://app.harness.io',
    limits: LIMITS,
    credentialHeader: 'x-api-key',
    accountClaims: {
      headers: ['harness-account', 'x-tenant-id'],
      query: ['accountIdentifier', 'accountId', 'accountID', 'account_id', 'account', 'routingId'],
    },
    accountHeader: 'Harness-Account',
    // The families of paths in which generated clients always send it, so that its absence is a mistake.
    accountQuery: {
      name: 'accountIdentifier',
      paths: ['/audit/api', '/cf/admin', '/lw/api', '/pipeline/api', '/template/api'],
    },
    // Its 429s do not say when to come back. The limiter refuses requests before they are carried out:
    // https://developer.harness.io/docs/platform/rate-limits
    throttle: { statuses: [429], pause: '1s', retry: 'any' },
    errors: 'harness',
  },
  limitSets: { default: LIMITS, published: PUBLISHED_LIMITS },
  aliasPrefix: '/gateway',
  needsAccountId: true,
  // The vendor says nothing of freshness. These are things that people seldom change and that many tools request again
  // and again.
  proposedCache: [
    {
      paths: /^\/(?:template\/api|v1(?:\/orgs\/[^/]+(?:\/projects\/[^/]+)?)?)\/templates(?:\/|$)/,
      rule: { freshFor: 30_000 },
    },
    {
      paths: /^\/ng\/api\/(?:accounts|organizations|projects|connectors|environmentsV2|servicesV2)(?:\/|$)/,
      rule: { freshFor: 10_000 },
    },
    { paths: /^\/v1\/orgs(?:\/[^/]+(?:\/projects(?:\/[^/]+)?)?)?$/, rule: { freshFor: 10_000 } },
    {
      paths: /^\/pipeline\/api\/pipelines\/(?:(?:list|summary\/[^/]+)$|(?!execution\b)[^/]+$)/,
      rule: { freshFor: 10_000 },
    },
  ],
  routes: () =>
    parseRouteFile(readFileSync(new URL('harness.routes', import.meta.url), 'utf8'), (rule, method, path) => ({
      ...withSafeReadingPosts(rule, method),
      ...credentialOf(rule.class, path),
      secretSegments: segmentsNamed(path, ['webhookToken']),
    })),
  classify: classifyBy(),
  accountsInPath,
  accountInCredential: (credential) => /^(?:pat|sat)\.([^.]+)\.[^.]+\.[^.]+$/.exec(credential)?.[1],
}

const WEBHOOK = /^\/(?:ng|pipeline|cv)\/api\/(?:account\/.*\/)?webhook(?:\/(?:custom|trigger|custom-change)(?:\/|$)|$)/
const TEMPLATE_SERVICE =
  /^\/(?:template\/api|v1\/template-schema|v1\/(?:orgs\/[^/]+\/(?:projects\/[^/]+\/)?)?templates)(?:\/|$)/
const SCIM = /^\/ng\/api\/scim\//

/** The rule for operations that are not listed, by the words and places that say where a POST only reads. */
export function classifyBy(words: ReadingWords = READING_WORDS, askedByPost = ASKED_BY_POST): Classify {
  const asked = new RegExp(`^/(?:${askedByPost.join('|') || '$'})`)
  const accessOf = (method: string, path: string): 'read' | 'write' => {
    if (method === 'POST') return asked.test(path) || soundsLikeReading(path, words) ? 'read' : 'write'
    if (isSafeMethod(method) && soundsLikeChanging(path)) return 'write'
    return classifyByMethod(method).class as 'read' | 'write'
  }
  return (method, path) => {
    const isWebhook = WEBHOOK.test(path)
    // For any method: a call with a wrong one contains the token, too.
    const secretSegments = isWebhook ? afterWebhookKind(path) : []
    if (isWebhook && method === 'POST') return { class: 'webhook', ...credentialOf('webhook', path), secretSegments }
    const access = accessOf(method, path)
    const rule: Guess = TEMPLATE_SERVICE.test(path)
      ? { class: 'template', charges: ['template', access] }
      : { class: access }
    return { ...rule, ...credentialOf(rule.class, path), secretSegments }
  }
}

/**
 * Webhook routes take no key: on some of them a key changes what the server checks, and is stored with the event. SCIM
 * takes the key as a bearer token.
 */
function credentialOf(className: string, path: string): Pick<RouteRule, 'credential'> {
  if (className === 'webhook') return { credential: 'none' }
  return SCIM.test(path) ? { credential: 'bearer' } : {}
}

/** In `/pipeline/api/webhook/custom/{token}/v3`, any segment behind the kind of webhook may be its token. */
function afterWebhookKind(path: string): number[] {
  const segments = path.split('/').filter((segment) => segment !== '')
  const kind = segments.indexOf('webhook') + 1
  return segments.flatMap((segment, index) => (index > kind && !/^v\d+$/.test(segment) ? [index] : []))
}

const ACCOUNT_PATHS = [
  /^\/(?:ng|lw|lw\/co)\/api\/accounts\/([^/]+)/,
  /^\/(?:cv\/api|ng\/api\/scim)\/account\/([^/]+)/,
  /^\/pkg\/([^/]+)\/./,
]
const REPOSITORY = /^\/code\/api\/v1\/repos\/([^/]+)(?:\/([^/]*))?/
const REPOSITORY_RESOURCES = new Set(
  'archive blame branches checks codeowners commits content default-branch diff diff-stats import-progress labels linked merge-check move path-details paths pipelines public-access pullreq purge raw restore rules secrets security settings soft-delete statistics summary tags uploads webhooks +'.split(
    ' ',
  ),
)

function accountsInPath(path: string): string[] {
  const accounts = ACCOUNT_PATHS.flatMap((pattern) => pattern.exec(path)?.[1] ?? [])
  const [, repository, next] = REPOSITORY.exec(path) ?? []
  if (repository !== undefined) {
    // A repository is named by its whole path, which begins with the account, or by its identifier alone.
    const [account = '', ...rest] = repository.split(/%2f/i)
    const isWholePath = rest.length > 0 || (next !== undefined && next !== '' && !REPOSITORY_RESOURCES.has(next))
    if (isWholePath) accounts.push(account)
  }
  return accounts
}
