import { readFileSync } from 'node:fs'
import { classifyByMethod, withSafeReadingPosts } from '../../routing/route.ts'
import { parseRouteFile } from '../../routing/route-file.ts'
import type { Preset } from './preset.ts'
import { soundsLikeReading } from './words.ts'

/**
 * The agent-harness API of Everruns. The vendor publishes no quotas: set `limits` to what was agreed. It does not say
 * either whether it answers 429 before it acts. So after a 429 only safe calls are sent again, unless `throttle.retry:
 * any` is set.
 */
export const everruns: Preset = {
  // a list that every token may read
  harmlessCall: '/v1/harnesses',
  config: {
    url: 'https://app.everruns.com/api',
    limits: { read: [], write: [], webhook: [] },
    credentialHeader: 'authorization',
    accountClaims: { headers: ['x-org-id'] },
    accountHeader: 'X-Org-Id',
    errors: 'problem',
  },
  proposedCache: [
    { paths: /^\/v1\/(?:agents|capabilities|harnesses)(?:\/[^/]+)?$/, rule: { private: true, freshFor: 10_000 } },
  ],
  routes: () =>
    parseRouteFile(readFileSync(new URL('everruns.routes', import.meta.url), 'utf8'), (rule, method) =>
      rule.class === 'webhook' ? { ...rule, credential: 'none' } : withSafeReadingPosts(rule, method),
    ),
  classify(method, path) {
    if (method === 'POST' && WEBHOOK.test(path)) return { class: 'webhook', credential: 'none' }
    if (method === 'POST' && (soundsLikeReading(path) || READING.test(path))) return { class: 'read' }
    return classifyByMethod(method)
  },
}

const WEBHOOK = /^\/v1\/apps\/[^/]+\/webhooks\/[^/]+$/
const READING = /\/(?:preview|dry-run)$/
