import { keyOf } from '../clients/keys.ts'
import type { ActiveClient } from '../clients/managed.ts'
import type { Config } from '../schema/schema.ts'
import { checkShares } from './client-problems.ts'

/**
 * Warns where clients of the configuration contradict those of the admin API. Both are in force together. A contradiction can not be
 * refused: either may be changed while the other is out of sight.
 */
export function clashesOf({ clients = {}, upstreams }: Config, managed: readonly ActiveClient[]): string[] {
  const warnings: string[] = []
  const names = new Set(managed.map(({ name }) => name))
  const owners = new Map(managed.flatMap(({ name, keys }) => keys.map(({ hash }) => [hash, name])))
  for (const [name, { keys }] of Object.entries(clients)) {
    if (names.has(name))
      warnings.push(
        `clients.${name} has the name of a client of the admin API, and each calls by its own keys: rename this one, or delete that one by its id`,
      )
    for (const [index, key] of keys.entries()) {
      const owner = owners.get(keyOf(key).hash)
      if (owner !== undefined)
        warnings.push(
          `clients.${name}.keys[${index}] is a key of "${owner}" of the admin API, too, so a call may count for either: revoke it there, or remove it here`,
        )
    }
  }
  // The shares of the configuration alone were checked with it.
  if (managed.some(({ scope }) => scope.share !== undefined)) {
    const scopes = managed.map(({ name, scope }) => [name, scope] as const)
    checkShares([...Object.entries(clients), ...scopes], upstreams, (name, message) => {
      warnings.push(`the share of client "${name}": ${message}, those of the admin API included`)
    })
  }
  return warnings
}
