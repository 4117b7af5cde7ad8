import { keyOf } from '../clients/keys.ts'
import { cacheWarnings } from './cache-warnings.ts'
import { isLoopback } from '../net/address.ts'
import type { FoundConfig } from './find.ts'
import type { Config } from '../schema/schema.ts'
import { textWarnings } from './text-warnings.ts'

/** Time enough to bring a new key to where the old one is used. */
const EXPIRES_SOON_MS = 7 * 86_400_000

/** What is allowed but may not do what was meant, in a configuration and in the text that it was read from. */
export function allWarnings({ config, text }: Pick<FoundConfig, 'config' | 'text'>): string[] {
  return [...(text === undefined ? [] : textWarnings(text)), ...warningsOf(config)]
}

/** What of it a configuration shows by itself. */
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
  if (isPlain(config.secrets.vault?.url)) {
    warnings.push('secrets.vault.url is http://, so its secrets travel unencrypted')
  }
  for (const [name, upstream] of Object.entries(config.upstreams)) {
    const { url, accounts } = upstream
    warnings.push(...cacheWarnings(name, upstream))
    // One that is missing comes from a reference that was left out.
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
  if (url === undefined) return false
  const { protocol, hostname } = new URL(url)
  return protocol === 'http:' && !isLoopback(hostname)
}
