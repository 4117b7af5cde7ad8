import { hash, randomBytes } from 'node:crypto'

/** A new id, such as `client_` and 32 hex digits. */
export function newId(sort: 'client' | 'key' | 'audit' | 'preset'): string {
  return `${sort}_${randomBytes(16).toString('hex')}`
}

/**
 * The id of a thing that has only a name, such as a client of the configuration file. It is the same at every instance.
 */
export function idOfName(sort: string, name: string): string {
  return `${sort}_${hash('sha256', `${sort}\n${name}`, 'hex').slice(0, 32)}`
}
