import { Value } from 'typebox/value'
import type { StoredClient } from '../../clients/managed.ts'
import { keyOf } from '../../clients/keys.ts'
import { type ClientConfig, ClientScopeSchema } from '../../schema/client-schema.ts'
import type { Config } from '../../schema/schema.ts'
import { idOfName } from '../../records/ids.ts'

export interface ShownKey {
  readonly id: string
  readonly label: string | null
  readonly created_at: string | null
  readonly expires_at: string | null
}

/** A client as the admin API shows it: its scope by the names of the configuration, and of its keys what is no secret. */
export interface ShownClient {
  readonly id: string
  readonly name: string
  /** Where the client is kept. The admin API can't change a client of the configuration file. */
  readonly source: 'config' | 'api'
  readonly read_only: boolean
  readonly keys: readonly ShownKey[]
  readonly created_at: string | null
  readonly updated_at: string | null
  readonly archived_at: string | null
  readonly version: number
}

export function managedClient(client: StoredClient): ShownClient {
  const { id, name, keys, scope, createdAt, updatedAt, archivedAt, version } = client
  return {
    id,
    name,
    source: 'api',
    read_only: false,
    ...scope,
    keys: keys.map((key) => ({
      id: key.id,
      label: key.label ?? null,
      created_at: timeOf(key.createdAt),
      expires_at: timeOf(key.expires),
    })),
    created_at: timeOf(createdAt),
    updated_at: timeOf(updatedAt),
    archived_at: timeOf(archivedAt),
    version,
  }
}

/** The clients that were shown before, by name. To encode them takes far longer than all else of a list. */
const shown = new WeakMap<Config, Map<string, ShownClient>>()

/** The clients of a configuration. Each is made when it comes to it: there may be thousands. */
export function* configuredClients(config: Config): Generator<ShownClient> {
  const known = shown.getOrInsertComputed(config, () => new Map<string, ShownClient>())
  for (const [name, client] of Object.entries(config.clients ?? {}))
    yield known.getOrInsertComputed(name, () => configuredClient(name, client))
}

function configuredClient(name: string, { keys, ...scope }: ClientConfig): ShownClient {
  return {
    id: idOfName('client', name),
    name,
    source: 'config',
    read_only: true,
    ...(Value.Encode(ClientScopeSchema, scope) as object),
    keys: keys.map((key) => {
      const { hash, label = null, expires } = keyOf(key)
      return { id: idOfName('key', hash), label, created_at: null, expires_at: timeOf(expires) }
    }),
    created_at: null,
    updated_at: null,
    archived_at: null,
    version: 1,
  }
}

function timeOf(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString()
}
