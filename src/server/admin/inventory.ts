import type { FastifyInstance } from 'fastify'
import type { Config } from '../../schema/schema.ts'
import { idOfName } from '../../records/ids.ts'
import { type Listed, listOf, oneOf, readListQuery, TAKES_QUERY } from './list.ts'
import type { Management } from './management.ts'

interface Shown extends Listed {
  readonly id: string
  readonly source: 'config'
  readonly read_only: true
}

/** Serves `/v1/upstreams`, `/v1/accounts` and `/v1/credentials` of the configuration file: credentials by name only. */
export function inventoryRoutes(api: FastifyInstance, { config }: Management): void {
  const kinds = { upstreams: upstreamsOf, accounts: accountsOf, credentials: credentialsOf }
  for (const [kind, all] of Object.entries(kinds)) {
    api.get(`/${kind}`, TAKES_QUERY, async ({ query }) => listOf(all(config()), readListQuery(query)))
    api.get<{ Params: { id: string } }>(`/${kind}/:id`, async ({ params }) =>
      oneOf(all(config()), kind.slice(0, -1), params.id),
    )
  }
}

function shown<Fields extends object>(kind: string, name: string, fields: Fields): Shown & Fields {
  return { id: idOfName(kind, name), name, source: 'config', read_only: true, ...fields }
}

function* upstreamsOf({ upstreams, defaultUpstream }: Config): Generator<Shown> {
  for (const [name, { url, preset, hosts, accounts, limits }] of Object.entries(upstreams))
    yield shown('upstream', name, {
      url: url ?? null,
      preset: preset ?? null,
      hosts,
      is_default: name === defaultUpstream,
      classes: Object.keys(limits),
      accounts: Object.keys(accounts).map((account) => `${name}/${account}`),
    })
}

function* accountsOf({ upstreams }: Config): Generator<Shown> {
  for (const [upstream, { accounts }] of Object.entries(upstreams))
    for (const [account, { id, credential, credentials }] of Object.entries(accounts)) {
      const name = `${upstream}/${account}`
      yield shown('account', name, {
        upstream,
        vendor_id: id ?? null,
        credential: (credential ?? credentials) === undefined ? null : name,
      })
    }
}

function* credentialsOf({ upstreams }: Config): Generator<Shown> {
  for (const [upstream, { accounts }] of Object.entries(upstreams))
    for (const [account, { credential, credentials = [] }] of Object.entries(accounts)) {
      const name = `${upstream}/${account}`
      const members = credentials.map(({ name: member, type }) => ({ name: `${name}#${member}`, type }))
      for (const { name: own, type = 'header' } of credential === undefined ? members : [{ ...credential, name }])
        yield shown('credential', own, { upstream, account: name, type })
    }
}
