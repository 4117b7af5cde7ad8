import { hash } from 'node:crypto'
import type { CredentialConfig } from '../config/schema.ts'
import type { Credential } from './credential.ts'
import { Secret } from './secret.ts'
import { BasicCredential, HeaderCredential, QueryCredential } from './static.ts'

/** Makes what a configuration describes. `defaultHeader` is that in which the upstream takes its credential. */
export function buildCredential(name: string, config: CredentialConfig, defaultHeader: string): Credential {
  const { type = 'header' } = config
  switch (type) {
    case 'header':
      return new HeaderCredential(name, config.header ?? defaultHeader, config.value!)
    case 'bearer':
      return new HeaderCredential(name, 'Authorization', config.value!, 'Bearer ')
    case 'basic':
      return new BasicCredential(name, config.username!, config.password!)
    case 'query':
      return new QueryCredential(name, config.parameter!, config.value!)
  }
}

/** The same for credentials that are one to the vendor; nothing can be told from it. */
export function identityOf(config: CredentialConfig, defaultHeader: string): string {
  const { type = 'header', header = defaultHeader, expires: _, ...rest } = config
  const fields: Record<string, unknown> = { ...rest, type, header: header.toLowerCase() }
  const names = Object.keys(fields).toSorted()
  const values = names.map((name) => {
    const value = fields[name]
    return value instanceof Secret ? value.reveal() : value
  })
  return hash('sha256', JSON.stringify([names, values]), 'hex')
}
