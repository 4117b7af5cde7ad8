import Type, { type StaticDecode } from 'typebox'
import { duration, HEADER_NAMES, hasPort, httpUrl, object, percent, secret } from './schema-parts.ts'
import { TlsSchema } from './upstream-schema.ts'

/** What a webhook can be told of. */
export const WEBHOOK_EVENTS = [
  'breaker',
  'credential',
  'store',
  'queue_full',
  'reload',
  'exhaustion',
  'usage',
  'used_up',
  'reduced',
  'refusals',
  'upstream',
] as const
export type WebhookEvent = (typeof WEBHOOK_EVENTS)[number]

/** Why a text can not be the URL of a webhook; undefined if it can. The reason repeats nothing of the text, which may hold a secret. */
export function whyNoWebhook(text: string): string | undefined {
  const isUrl = hasPort(text) && /^https?:$/.test(new URL(text).protocol) && new URL(text).username === ''
  return isUrl ? undefined : 'must be an http:// or https:// URL without user; headers may hold what proves us'
}

/** An entry of `webhooks`: a URL that is sent a message when something is wrong, and when it no longer is. */
export const WebhookSchema = object({
  url: secret(
    'The http:// or https:// URL to POST to. It may hold a secret, so it is never shown; have a reference stand for it.',
  ),
  format: Type.Enum(['json', 'slack'], {
    default: 'json',
    description: 'json: all that is known, as docs/webhooks.md describes it; slack: a text, as chats take it.',
  }),
  events: Type.Array(Type.Enum(WEBHOOK_EVENTS), {
    minItems: 1,
    default: WEBHOOK_EVENTS.slice(0, WEBHOOK_EVENTS.indexOf('used_up')),
    description:
      'What is told: breaker open; credential refused or expired, or the certificate of the port or a key of a client about to; store away, degraded, or lost data; queue_full; reload rejected; exhaustion of a limit within two hours; usage of a limit or budget at the thresholds; used_up: calls have to queue up; reduced: the vendor lets less through; refusals of the gateway of other kinds; upstream failing or slow.',
  }),
  thresholds: Type.Array(percent('Part of what can be used of it.'), {
    minItems: 1,
    default: ['80%', '95%'],
    description: 'At which usage of each limit and budget to tell, each once while it is above the first.',
  }),
  runbook: Type.Optional(httpUrl('Where you serve docs/runbook.md. Messages link to their alert there.')),
  repeat: duration('While something lasts, it is told again after so long.', { default: '4h', min: '1m' }),
  headers: Type.Optional(
    Type.Record(Type.String(), secret('Its value.'), {
      propertyNames: HEADER_NAMES,
      description: 'Headers to add, such as authorization.',
    }),
  ),
  proxy: Type.Optional(secret('URL of an HTTP proxy to send through (CONNECT), as with upstreams.')),
  tls: Type.Optional(TlsSchema),
  privateAddresses: Type.Optional(
    Type.Enum(['allow', 'deny'], { description: 'Whether its host may have a private address, as with upstreams.' }),
  ),
})

export type WebhookConfig = StaticDecode<typeof WebhookSchema>
