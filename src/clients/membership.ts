import type { Config } from '../schema/schema.ts'
import type { ManagedClients } from './managed.ts'

/** What a client belongs to, by the names of the configuration; undefined where it has none. */
export interface Membership {
  readonly team?: string | undefined
  readonly organisation?: string | undefined
}

/** Says of each client, of the configuration and of the admin API, what it belongs to now. */
export function membershipsOf(
  { clients = {}, teams }: Config,
  managed: ManagedClients,
): (client: string) => Membership {
  if (Object.keys(teams).length === 0) return () => ({})
  const teamOf = new Map<string, string | undefined>()
  for (const { name, scope } of managed.all) teamOf.set(name, (scope as { team?: string }).team)
  for (const [name, { team }] of Object.entries(clients)) teamOf.set(name, team)
  return (client) => {
    const team = teamOf.get(client)
    return { team, organisation: team === undefined ? undefined : teams[team]?.organisation }
  }
}
