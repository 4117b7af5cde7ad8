import { membersOf } from '../../http/fields.ts'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import type { EpochMs } from '../../time/clock.ts'
import type { ManagedClients, StoredClient, StoredKey } from '../../clients/managed.ts'
import { createKey, hashKey } from '../../clients/keys.ts'
import { checkScope } from '../../config/client-problems.ts'
import { ClientScopeSchema, keyHash, keyLabel } from '../../schema/client-schema.ts'
import type { Problem } from '../../config/problem.ts'
import type { Config } from '../../schema/schema.ts'
import { moment, name, object } from '../../schema/schema-parts.ts'
import { newId } from '../../records/ids.ts'
import { configuredClients, managedClient, type ShownClient } from './client-view.ts'
import { listOf, oneOf, readListQuery } from './list.ts'
import { AdminProblem, invalid, notFound } from './problem.ts'
import type { Management } from './management.ts'
import { readBody } from './validate.ts'

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
export function clientRoutes(api: FastifyInstance, management: Management): void {
  const routes = new ClientRoutes(management)
  api.get('/clients', (request) => listOf(routes.all(), readListQuery(request.query)))
  api.post('/clients', (request, reply) => routes.create(request, reply))
  api.get<Id>('/clients/:id', ({ params }, reply) => withTag(reply, routes.find(params.id)))
  api.patch<Id>('/clients/:id', (request, reply) => routes.update(request, reply))
  api.delete<Id>('/clients/:id', (request, reply) => routes.delete(request, reply))
  api.post<Id>('/clients/:id/archive', (request, reply) => routes.archive(request, reply, true))
  api.post<Id>('/clients/:id/unarchive', (request, reply) => routes.archive(request, reply, false))
  api.post<Id>('/clients/:id/keys', (request, reply) => routes.createKey(request, reply))
  api.delete<KeyId>('/clients/:id/keys/:key', (request, reply) => routes.revokeKey(request, reply))
}

class ClientRoutes {
  readonly #management: Management
  readonly #clients: ManagedClients

  constructor(management: Management) {
    this.#management = management
    this.#clients = management.clients
  }

  all(): ShownClient[] {
    if (!this.#clients.isKnown) throw unreadable()
    return [...configuredClients(this.#management.config()), ...this.#clients.all.map(managedClient)]
  }

  find(id: string): ShownClient {
    return oneOf(this.all(), 'client', id)
  }

  async create(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const { name, key: wanted, keys: given, ...scope } = readBody(NewClientSchema, request.body)
    const config = this.#management.config()
    this.#check(scope, config)
    if (given !== undefined && wanted !== undefined)
      throw invalid('give keys that exist, or key for a new one, not both')
    if (config.clients?.[name] !== undefined) throw nameTaken()
    const now = this.#management.clock.wall()
    const { key, stored } = given === undefined ? newKey(wanted ?? {}, now) : { key: undefined, stored: undefined }
    const keys = stored === undefined ? given!.map((one) => storedKey(one.hash, one, now)) : [stored]
    this.#checkKeys(keys)
    const made: StoredClient = { id: newId('client'), name, keys, scope, createdAt: now, updatedAt: now, version: 1 }
    await this.#clients.change(name, (before) => {
      if (before !== undefined && before.deletedAt === undefined) throw nameTaken()
      return made
    })
    const after = managedClient(made)
    await this.#audit(request, 'create', made, null, after)
    reply.code(201).header('Location', `/v1/clients/${made.id}`)
    return withTag(reply, after, (client) => (key === undefined ? client : { ...client, key }))
  }

  /** A merge patch (RFC 7396): a field that is null is removed. */
  async update(request: FastifyRequest<Id>, reply: FastifyReply): Promise<FastifyReply> {
    const patch = request.body
    if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) throw invalid('the body must be an object')
    const after = await this.#change(request, 'update', (client) => {
      const merged = Object.entries({ ...client.scope, ...patch }).filter(([, value]) => value !== null)
      const scope = readBody(ClientScopeSchema, Object.fromEntries(merged))
      this.#check(scope, this.#management.config())
      return { ...client, scope }
    })
    return withTag(reply, after)
  }

  async archive(request: FastifyRequest<Id>, reply: FastifyReply, isArchived: boolean): Promise<FastifyReply> {
    const after = await this.#change(
      request,
      isArchived ? 'archive' : 'unarchive',
      ({ archivedAt = this.#management.clock.wall(), ...client }) => (isArchived ? { ...client, archivedAt } : client),
    )
    return withTag(reply, after)
  }

  async delete(request: FastifyRequest<Id>, reply: FastifyReply): Promise<FastifyReply> {
    const deletedAt = this.#management.clock.wall()
    await this.#change(request, 'delete', (client) => ({ ...client, keys: [], deletedAt }))
    return reply.code(204).send()
  }

  async createKey(request: FastifyRequest<Id>, reply: FastifyReply): Promise<FastifyReply> {
    const { key, stored } = newKey(readBody(NewKeySchema, request.body), this.#management.clock.wall())
    const after = await this.#change(request, 'create_key', (client) => ({ ...client, keys: [...client.keys, stored] }))
    return withTag(reply.code(201), after, ({ keys }) => ({ ...keys.find(({ id }) => id === stored.id), key }))
  }

  async revokeKey(request: FastifyRequest<KeyId>, reply: FastifyReply): Promise<FastifyReply> {
    const { key } = request.params
    const after = await this.#change(request, 'revoke_key', (client) => {
      if (!client.keys.some(({ id }) => id === key)) throw notFound('key', key)
      return { ...client, keys: client.keys.filter(({ id }) => id !== key) }
    })
    return withTag(reply, after)
  }

  /** Changes a client as it is at that moment. Refuses if If-Match names another version of it (RFC 9110 §13.1.1). */
  async #change(
    request: FastifyRequest<Id>,
    action: string,
    change: (client: StoredClient) => StoredClient,
  ): Promise<ShownClient> {
    const shown = this.find(request.params.id)
    const { id } = shown
    if (shown.read_only) {
      throw new AdminProblem(409, 'READ_ONLY', 'this client stands in the configuration file, and is changed there')
    }
    const wanted = membersOf(request.headers['if-match'])
    let before: StoredClient | undefined
    let after: StoredClient | undefined
    await this.#clients.change(shown.name, (stored) => {
      if (stored?.id !== id || stored.deletedAt !== undefined) throw notFound('client', shown.name)
      if (wanted.length > 0 && !wanted.includes('*') && !wanted.includes(tagOf(stored.version))) {
        throw new AdminProblem(412, 'PRECONDITION_FAILED', 'the client was changed meanwhile: read it again')
      }
      before = stored
      after = { ...change(stored), updatedAt: this.#management.clock.wall(), version: stored.version + 1 }
      return after
    })
    const shownAfter = managedClient(after!)
    await this.#audit(request, action, after!, managedClient(before!), shownAfter)
    return shownAfter
  }

  #check(scope: object, config: Config): void {
    const errors: Problem[] = []
    checkScope([], Value.Decode(ClientScopeSchema, scope), config, (path, message) => errors.push({ path, message }))
    if (errors.length > 0) throw invalid('the body is not as it must be', errors)
  }

  /** Refuses a key that another client has. A call with it would count for whichever client was found first. */
  #checkKeys(keys: readonly StoredKey[]): void {
    const known = new Set(this.#clients.all.flatMap((client) => client.keys.map(({ hash }) => hash)))
    for (const { keys } of Object.values(this.#management.config().clients ?? {})) {
      for (const key of keys) known.add(typeof key === 'string' ? key : key.hash)
    }
    for (const { hash } of keys) {
      if (known.has(hash)) throw new AdminProblem(409, 'KEY_TAKEN', 'a client has one of these keys already')
      known.add(hash)
    }
  }

  #audit(request: FastifyRequest, action: string, { id, name }: StoredClient, before: object | null, after: object) {
    return this.#management.audit.record(request.actor, {
      action: `client.${action}`,
      target: id,
      name,
      before,
      after: action === 'delete' ? null : after,
    })
  }
}

type KeyFields = Static<typeof NewKeySchema>

function newKey(fields: KeyFields, now: EpochMs): { key: string; stored: StoredKey } {
  const { key } = createKey()
  return { key, stored: storedKey(hashKey(key), fields, now) }
}

function storedKey(hash: string, { label, expires }: KeyFields, now: EpochMs): StoredKey {
  return {
    id: newId('key'),
    hash,
    createdAt: now,
    ...(label === undefined ? {} : { label }),
    ...(expires === undefined ? {} : { expires: Value.Decode(moment(''), expires) }),
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

function nameTaken(): AdminProblem {
  return new AdminProblem(409, 'NAME_TAKEN', 'there is a client of this name already')
}

function unreadable(): AdminProblem {
  return new AdminProblem(503, 'STORE_UNAVAILABLE', 'the clients can’t be read: the store does not answer')
}
