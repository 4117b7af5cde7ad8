import type { LookupFunction } from 'node:net'
import { accessOf, isAccessAllowed, isAddressAllowed } from '../clients/network-access.ts'
import { ofNewValue, whyNoHeaderValue } from '../http/fields.ts'
import { retryAfterOf } from '../http/retry-after.ts'
import { manifest } from '../manifest.ts'
import { isLocalhost } from '../net/address.ts'
import { guardedLookup } from '../net/guarded-lookup.ts'
import { proxyOf } from '../schema/proxy.ts'
import type { Config } from '../schema/schema.ts'
import { tlsOptions } from '../schema/upstream-schema.ts'
import { type WebhookConfig, whyNoWebhook } from '../schema/webhook-schema.ts'
import type { Clock } from '../time/clock.ts'
import { ConnectTimeout } from '../upstream/connect.ts'
import { Transport } from '../upstream/transport.ts'

export type Outcome =
  | { readonly kind: 'sent' }
  /** `because` never contains a part of the URL, which may be secret. `isPassing`: another try may succeed. */
  | {
      readonly kind: 'failed'
      readonly because: string
      readonly isPassing: boolean
      readonly retryAfterMs: number | undefined
    }

/** How long a message may take, from the connection to the end of the answer. */
const ANSWER_WITHIN_MS = 10_000
const CONNECT_WITHIN_MS = 5_000
const LARGEST_ANSWER = 65_536
/** Statuses below 500 after which another try may succeed. */
const PASSING = new Set([408, 425, 429])

export interface ReceiverOptions {
  readonly config: WebhookConfig
  readonly access: Config['networkAccess']
  readonly clock: Clock
  readonly lookup: LookupFunction | undefined
}

/** Sends the messages of one webhook. It uses the same connections, look-ups and rules for addresses as calls to upstreams. */
export class Receiver {
  readonly #options: ReceiverOptions
  /** The URL of the transport. The configured URL is a secret, whose value may change while the gateway runs. */
  #url = ''
  #transport: Transport | undefined
  readonly #running = new Set<AbortController>()

  constructor(options: ReceiverOptions) {
    this.#options = options
    const { url, headers = {} } = options.config
    url.whyNot = (text) => ofNewValue(whyNoWebhook(text))
    for (const value of Object.values(headers)) value.whyNot = whyNoHeaderValue
  }

  /** Sends a message. Never throws. Redirects are not followed: the configuration has to name the final URL. */
  async send(body: string): Promise<Outcome> {
    const { config, access, clock } = this.#options
    const text = config.url.reveal()
    // It may have got its value before anybody judged it.
    if (whyNoWebhook(text) !== undefined) return failed('its url is not a URL of HTTP', false)
    if (!isAccessAllowed(text, [accessOf({ blocked: access?.blocked ?? [] })]))
      return failed('networkAccess blocks its url', false)
    const url = new URL(text)
    const transport = this.#transportTo(url)
    const headers = ['content-type', 'application/json', 'user-agent', `sluice/${manifest.version}`]
    for (const [name, value] of Object.entries(config.headers ?? {})) headers.push(name, value.reveal())
    const running = new AbortController()
    // There is one connection, and the next message needs it: so an answer that does not end is given up, too. The timer uses
    // real time, as those of connections do, and not the gateway's clock.
    const timer = setTimeout(() => running.abort(new Error('no answer in time')), ANSWER_WITHIN_MS)
    const end = (): void => {
      clearTimeout(timer)
      this.#running.delete(running)
    }
    this.#running.add(running)
    const { signal } = running
    const path = url.pathname + url.search
    try {
      const answer = await transport.request({ method: 'POST', path, headers, body, signal })
      answer.body
        .dump({ limit: LARGEST_ANSWER, signal })
        .catch(() => undefined)
        .finally(end)
      const { statusCode: status, headers: fields } = answer
      if (status >= 200 && status < 300) return { kind: 'sent' }
      const isPassing = status >= 500 || PASSING.has(status)
      return { ...failed(`it answered ${status}`, isPassing), retryAfterMs: retryAfterOf(fields, clock.wall()) }
    } catch (error) {
      end()
      return failed(reasonOf(error as Error), (error as { code?: string }).code !== 'ERR_ADDRESS_NOT_ALLOWED')
    }
  }

  async close(): Promise<void> {
    for (const running of this.#running) running.abort(new Error('the gateway stops'))
    await this.#transport?.close()
  }

  #transportTo(url: URL): Transport {
    if (this.#transport !== undefined && this.#url === url.href) return this.#transport
    void this.#transport?.close()
    const { config, access, lookup } = this.#options
    const layers = access === undefined ? [] : [accessOf(access)]
    const arePrivateAllowed = config.privateAddresses === 'allow' || isLocalhost(url.hostname)
    this.#url = url.href
    this.#transport = new Transport({
      url,
      connections: 1,
      connectTimeoutMs: CONNECT_WITHIN_MS,
      tlsTimeoutMs: CONNECT_WITHIN_MS,
      idleTimeoutMs: ANSWER_WITHIN_MS,
      http2: false,
      proxy: proxyOf(config.proxy),
      tls: tlsOptions(config.tls),
      lookup: guardedLookup({ isAllowed: (address) => isAddressAllowed(address, layers, arePrivateAllowed), lookup }),
    })
    return this.#transport
  }
}

function failed(because: string, isPassing: boolean): Outcome & { kind: 'failed' } {
  return { kind: 'failed', because, isPassing, retryAfterMs: undefined }
}

/** Why nothing was answered, without the error's own message: that may contain the host. */
function reasonOf(error: Error): string {
  const { code } = error as { code?: string }
  if (code === 'ERR_ADDRESS_NOT_ALLOWED') return 'its host has no address that the network access rules allow'
  if (error instanceof ConnectTimeout) return error.message
  return code === undefined || code.startsWith('UND_') ? 'it gave no answer' : `it can not be reached (${code})`
}
