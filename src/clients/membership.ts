import type { Config } from '../schema/schema.ts'
import type { ManagedClients } from './managed.ts'

/** The names of the team and the organisation that a client belongs to. Undefined where it has none. */
export interface Membership {
  readonly team?: string | undefined
  readonly organisation?: string | undefined
}

/** Returns a function that finds the membership of a client, of the configuration or of the admin API, as it is now. */
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
