import { membersOf } from '../../http/fields.ts'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import type { EpochMs } from '../../time/clock.ts'
import type { ManagedClients, StoredClient, StoredKey } from '../../clients/managed.ts'
import { createKey, hashKey, keyOf } from '../../clients/keys.ts'
import { checkScope, checkShares } from '../../config/client-problems.ts'
import { type ClientScope, ClientScopeSchema, keyHash, keyLabel } from '../../schema/client-schema.ts'
import type { Path, Problem } from '../../config/problem.ts'
import { isSame } from '../../schema/difference.ts'
import { isObject } from '../../schema/json.ts'
import type { Config } from '../../schema/schema.ts'
import { moment, name, object } from '../../schema/schema-parts.ts'
import { newId } from '../../records/ids.ts'
import { configuredClients, managedClient, type ShownClient } from './client-view.ts'
import { listOf, oneOf, readFlag, readListQuery, TAKES_QUERY } from './list.ts'
import { AdminProblem, invalid, notFound, nameTaken, storeUnavailable } from './problem.ts'
import type { Management } from './management.ts'
import { mergePatch } from './merge-patch.ts'
import { check, readBody } from './validate.ts'

const keyFields = { label: Type.Optional(keyLabel), expires: Type.Optional(moment('When it is refused from.')) }
const NewKeySchema = object(keyFields)
const NewClientSchema = object({
  name: name(),
  key: Type.Optional(NewKeySchema),
  /** Hashes of keys that exist already. With them no new key is made. */
  keys: Type.Optional(Type.Array(object({ hash: keyHash(), ...keyFields }), { minItems: 1 })),
  ...ClientScopeSchema.properties,
})

type Id = { Params: { id: string } }
type KeyId = { Params: { id: string; key: string } }

/** Serves `/v1/clients`: the clients of the configuration, which can only be read, and those that were made here. */
export function clientRoutes(api: FastifyInstance, { clients, config, clock, audit }: Management): void {
  const all = function* (hasArchived = true): Generator<ShownClient> {
    if (!clients.isKnown)
      throw storeUnavailable(`the clients can’t be read: ${clients.problem ?? 'nobody has tried yet'}`)
    yield* configuredClients(config())
    for (const client of clients.all) if (hasArchived || client.archivedAt === undefined) yield managedClient(client)
  }
  const find = (id: string): Promise<ShownClient> => oneOf(all(), 'client', id)
  const deleted = (client: StoredClient): StoredClient => ({ ...client, keys: [], deletedAt: clock.wall() })
  const nextOf = (stored: StoredClient, changed: (client: StoredClient) => StoredClient): StoredClient => ({
    ...changed(stored),
    updatedAt: clock.wall(),
    version: stored.version + 1,
  })
  /** `undo` takes the change back if it can't be noted: an answer with an error shows no new key, and nothing else ever does. */
  const note = async (
    { actor }: FastifyRequest,
    action: string,
    { id: target, name }: StoredClient,
    before: object | null,
    after: object | null,
    undo?: (client: StoredClient) => StoredClient,
  ): Promise<void> => {
    try {
      await audit.record(actor, { action: `client.${action}`, target, name, before, after })
    } catch (error) {
      if (undo === undefined) throw error
      const takeBack = (stored?: StoredClient): StoredClient => (stored?.id === target ? nextOf(stored, undo) : stored!)
      // It may fail for the same reason, which the first error tells.
      await clients.change(name, takeBack).catch(() => undefined)
      throw error
    }
  }

  /** Changes a client as it is at that moment. Refuses if If-Match names another version of it (RFC 9110 §13.1.1). */
  const change = async (
    request: FastifyRequest<Id>,
    action: string,
    changed: (client: StoredClient) => StoredClient,
    undo?: (client: StoredClient) => StoredClient,
  ): Promise<ShownClient> => {
    const shown = await find(request.params.id)
    const { id } = shown
    if (shown.read_only) {
      throw new AdminProblem(409, 'READ_ONLY', 'this client stands in the configuration file, and is changed there')
    }
    const wanted = membersOf(request.headers['if-match'])
    let before: StoredClient | undefined
    let after: StoredClient | undefined
    await clients.change(shown.name, (stored) => {
      if (stored?.id !== id || stored.deletedAt !== undefined) throw notFound('client', shown.name)
      if (wanted.length > 0 && !wanted.includes('*') && !wanted.includes(tagOf(stored.version))) {
        throw new AdminProblem(412, 'PRECONDITION_FAILED', 'the client was changed meanwhile: read it again')
      }
      before = stored
      after = nextOf(stored, changed)
      return after
    })
    const shownAfter = managedClient(after!)
    await note(request, action, after!, managedClient(before!), action === 'delete' ? null : shownAfter, undo)
    return shownAfter
  }

  api.get('/clients', TAKES_QUERY, async ({ query }) => {
    const page = readListQuery(query, ['include_archived'])
    return listOf(all(readFlag(query as Record<string, unknown>, 'include_archived')), page)
  })
  api.get<Id>('/clients/:id', async ({ params }, reply) => withTag(reply, await find(params.id)))
  api.post('/clients', async (request, reply) => {
    const { name, key: wanted, keys: given, ...scope } = readBody(NewClientSchema, request.body)
    const inForce = config()
    checkClientScope(scope, inForce)
    if (Object.hasOwn(inForce.clients ?? {}, name)) throw nameTaken('client')
    if (given !== undefined && wanted !== undefined)
      throw invalid('give keys that exist, or key for a new one, not both')
    const now = clock.wall()
    const fresh = given === undefined ? newKey(wanted ?? {}, now, ['key']) : undefined
    const keys =
      fresh === undefined ? given!.map((one, i) => storedKey(one.hash, one, now, ['keys', i])) : [fresh.stored]
    if (new Set(keys.map(({ hash }) => hash)).size < keys.length) throw invalid('keys has the same hash twice')
    const made: StoredClient = { id: newId('client'), name, keys, scope, createdAt: now, updatedAt: now, version: 1 }
    await clients.change(name, (before) => {
      if (before !== undefined && before.deletedAt === undefined) throw nameTaken('client')
      checkShare(made, clients, inForce)
      checkKeys(made, clients, inForce)
      return made
    })
    const after = managedClient(made)
    await note(request, 'create', made, null, after, deleted)
    reply.code(201).header('Location', `/v1/clients/${made.id}`)
    return withTag(reply, after, (client) => (fresh === undefined ? client : { ...client, key: fresh.key }))
  })
  // The media type of a merge patch (RFC 7396 §4).
  api.addContentTypeParser(
    'application/merge-patch+json',
    { parseAs: 'string' },
    api.getDefaultJsonParser('error', 'error'),
  )
  api.patch<Id>('/clients/:id', async (request, reply) => {
    const patch = request.body
    if (!isObject(patch)) throw invalid('the body must be an object')
    const after = await change(request, 'update', (client) => {
      const scope = readBody(ClientScopeSchema, mergePatch(client.scope, patch))
      checkClientScope(scope, config())
      // What is wrong with it already must not hold up another change of it, least of all one that makes it better.
      if (!takesNoMore(scope, client.scope)) checkShare({ name: client.name, scope }, clients, config())
      return { ...client, scope }
    })
    return withTag(reply, after)
  })
  api.delete<Id>('/clients/:id', async (request, reply) => {
    await change(request, 'delete', deleted)
    return reply.code(204).send()
  })
  api.post<Id>('/clients/:id/archive', async (request, reply) => {
    const after = await change(request, 'archive', (client) => ({ archivedAt: clock.wall(), ...client }))
    return withTag(reply, after)
  })
  api.post<Id>('/clients/:id/unarchive', async (request, reply) => {
    const after = await change(request, 'unarchive', (client) => {
      if (Object.hasOwn(config().clients ?? {}, client.name)) throw nameTaken('client')
      check(
        ClientScopeSchema,
        client.scope,
        'another version stored what this one does not understand: change it first',
      )
      checkShare(client, clients, config())
      checkKeys(client, clients, config())
      const { archivedAt: _, ...inForce } = client
      return inForce
    })
    return withTag(reply, after)
  })
  api.post<Id>('/clients/:id/keys', async (request, reply) => {
    const { key, stored } = newKey(readBody(NewKeySchema, request.body), clock.wall(), [])
    const add = (client: StoredClient) => ({ ...client, keys: [...client.keys, stored] })
    const after = await change(request, 'create_key', add, (client) => withoutKey(client, stored.id))
    return withTag(reply.code(201), after, ({ keys }) => ({ ...keys.find(({ id }) => id === stored.id), key }))
  })
  api.delete<KeyId>('/clients/:id/keys/:key', async (request, reply) => {
    const { key } = request.params
    const after = await change(request, 'revoke_key', (client) => {
      if (!client.keys.some(({ id }) => id === key)) throw notFound('key', key)
      return withoutKey(client, key)
    })
    return withTag(reply, after)
  })
}

function withoutKey({ keys, ...client }: StoredClient, key: string): StoredClient {
  return { ...client, keys: keys.filter(({ id }) => id !== key) }
}

function checkClientScope(scope: object, config: Config): void {
  const errors: Problem[] = []
  checkScope([], Value.Decode(ClientScopeSchema, scope), config, (path, message) => errors.push({ path, message }))
  if (errors.length > 0) throw invalid('the body is not as it must be', errors)
}

/** Refuses a share with which those of an account would be more than all of it, as a configuration is refused. */
function checkShare(
  { name, scope }: Pick<StoredClient, 'name' | 'scope'>,
  clients: ManagedClients,
  config: Config,
): void {
  const decoded = Value.Decode(ClientScopeSchema, scope)
  if (decoded.share === undefined) return
  const others = clients.active
    .filter((client) => client.name !== name)
    .map((client) => [client.name, client.scope] as const)
  // The client is the last: it is the one that is reported wherever it has a share.
  const all = [...Object.entries(config.clients ?? {}), ...others, [name, decoded] as const]
  checkShares(all, config.upstreams, (reported, message) => {
    if (reported !== name) return
    throw invalid('this share can not be kept beside those of the other clients', [{ path: ['share'], message }])
  })
}

/** Whether a client has at most the share that it had, of the same accounts. Another version may have stored what this one does not understand. */
function takesNoMore(scope: object, before: object): boolean {
  if (!Value.Check(ClientScopeSchema, before)) return false
  const [now, was] = [scope, before].map((one) => Value.Decode(ClientScopeSchema, one)) as [ClientScope, ClientScope]
  const isOfSame = isSame([now.accounts, now.upstreams], [was.accounts, was.upstreams])
  return isOfSame && (now.share ?? 0) <= (was.share ?? 0)
}

/** Refuses a key that another client has. A call with it would count for whichever client was found first. */
function checkKeys({ name, keys }: Pick<StoredClient, 'name' | 'keys'>, clients: ManagedClients, config: Config): void {
  const others = clients.all.filter((client) => client.name !== name)
  const known = new Set(others.flatMap((client) => client.keys.map(({ hash }) => hash)))
  for (const client of Object.values(config.clients ?? {})) {
    for (const key of client.keys) known.add(keyOf(key).hash)
  }
  for (const { hash } of keys) {
    if (known.has(hash)) throw new AdminProblem(409, 'KEY_TAKEN', 'a client has one of these keys already')
  }
}

type KeyFields = Static<typeof NewKeySchema>

function newKey(fields: KeyFields, now: EpochMs, path: Path): { key: string; stored: StoredKey } {
  const { key } = createKey()
  return { key, stored: storedKey(hashKey(key), fields, now, path) }
}

/** `path` is where the fields stand in the body, for the error. */
function storedKey(hash: string, { label, expires }: KeyFields, now: EpochMs, path: Path): StoredKey {
  const end = expires === undefined ? undefined : Value.Decode(moment(''), expires)
  if (end !== undefined && end <= now)
    throw invalid('a new key must not have expired', [{ path: [...path, 'expires'], message: 'is in the past' }])
  return {
    id: newId('key'),
    hash,
    createdAt: now,
    ...(label === undefined ? {} : { label }),
    ...(end === undefined ? {} : { expires: end }),
  }
}

/** The entity tag of a client's state (RFC 9110 §8.8.3). It changes with its version. */
function tagOf(version: number): string {
  return `"${version}"`
}

function withTag(
  reply: FastifyReply,
  client: ShownClient,
  show: (client: ShownClient) => object = (client) => client,
): FastifyReply {
  // Some of these answers hold a new key, which must be in no cache.
  return reply.header('ETag', tagOf(client.version)).header('Cache-Control', 'no-store').send(show(client))
}
