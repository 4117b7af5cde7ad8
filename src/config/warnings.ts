import { keyOf } from '../clients/keys.ts'
import { cacheWarnings } from './cache-warnings.ts'
import { isLoopback } from '../net/address.ts'
import type { FoundConfig } from './find.ts'
import type { Config } from '../schema/schema.ts'
import { textWarnings } from './text-warnings.ts'

/** Enough time to bring a new key to where the old one is used. */
const EXPIRES_SOON_MS = 7 * 86_400_000

/** Everything in a configuration, and in its text, that is allowed but probably does not do what was intended. */
export function allWarnings({ config, text }: Pick<FoundConfig, 'config' | 'text'>): string[] {
  return [...(text === undefined ? [] : textWarnings(text)), ...warningsOf(config)]
}

/** The warnings that need only the configuration itself. */
export function warningsOf(config: Config, now = Date.now()): string[] {
  const warnings: string[] = []
  for (const [name, client] of Object.entries(config.clients ?? {})) {
    for (const [index, key] of client.keys.entries()) {
      const { expires = Infinity } = keyOf(key)
      if (expires <= now + EXPIRES_SOON_MS) {
        const what = expires <= now ? 'has expired' : `expires ${new Date(expires).toISOString()}`
        warnings.push(`clients.${name}.keys[${index}] ${what}`)
      }
    }
  }
  if (config.forwardProxy !== undefined && !isLoopback(config.forwardProxy.host)) {
    warnings.push('forwardProxy.host is beyond loopback, so the keys of its clients travel unencrypted to it')
  }
  if (isPlain(config.secrets.vault?.url)) {
    warnings.push('secrets.vault.url is http://, so its secrets travel unencrypted')
  }
  const { endpoint, headers = {} } = config.telemetry.traces ?? {}
  if (isPlain(endpoint) && Object.keys(headers).length > 0)
    warnings.push('telemetry.traces.endpoint is http://, so its headers travel unencrypted')
  for (const [name, { url }] of Object.entries(config.webhooks)) {
    if (isPlain(url.reveal())) warnings.push(`webhooks.${name}.url is http://, so what it tells travels unencrypted`)
  }
  for (const [name, upstream] of Object.entries(config.upstreams)) {
    const { url, accounts } = upstream
    warnings.push(...cacheWarnings(name, upstream))
    // A URL is missing if it was a reference that may stay unresolved.
    if (isPlain(url)) warnings.push(`upstreams.${name}.url is http://, so its credentials travel unencrypted`)
    for (const [account, { credential }] of Object.entries(accounts)) {
      if (!isPlain(credential?.tokenUrl)) continue
      const path = `upstreams.${name}.accounts.${account}.credential.tokenUrl`
      warnings.push(`${path} is http://, so what proves the client travels unencrypted`)
    }
  }
  return warnings
}

function isPlain(url: string | undefined): boolean {
  // A reference may stay unresolved here.
  if (url === undefined || !URL.canParse(url)) return false
  const { protocol, hostname } = new URL(url)
  return protocol === 'http:' && !isLoopback(hostname)
}
