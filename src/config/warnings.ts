import { isLoopback } from './loopback.ts'
import type { Config } from './schema.ts'

/** What is allowed but may not do what was meant. */
export function warningsOf(config: Config): string[] {
  const warnings: string[] = []
  for (const [name, client] of Object.entries(config.clients ?? {})) {
    if (client.share !== undefined) warnings.push(`clients.${name}.share is not enforced by this version`)
  }
  for (const [name, { url }] of Object.entries(config.upstreams)) {
    if (url === undefined) continue // it comes from a reference that was left out
    const { protocol, hostname } = new URL(url)
    if (protocol === 'http:' && !isLoopback(hostname)) {
      warnings.push(`upstreams.${name}.url is http://, so its credentials travel unencrypted`)
    }
  }
  return warnings
}
