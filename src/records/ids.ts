import { hash, randomBytes } from 'node:crypto'

/** Such as `client_` and 32 hex digits. */
export function newId(sort: 'client' | 'key' | 'audit' | 'preset'): string {
  return `${sort}_${randomBytes(16).toString('hex')}`
}

/** The id of what has only a name, such as what stands in a configuration file; the same wherever it is asked for. */
export function idOfName(sort: string, name: string): string {
  return `${sort}_${hash('sha256', `${sort}\n${name}`, 'hex').slice(0, 32)}`
}
