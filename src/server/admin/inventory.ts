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
    api.get(`/${kind}`, TAKES_QUERY, (request) => listOf(all(config()), readListQuery(request.query)))
    api.get<{ Params: { id: string } }>(`/${kind}/:id`, ({ params }) =>
      oneOf(all(config()), kind.slice(0, -1), params.id),
    )
  }
}

function shown<Fields extends object>(kind: string, name: string, fields: Fields): Shown & Fields {
  return { id: idOfName(kind, name), name, source: 'config', read_only: true, ...fields }
}

function upstreamsOf({ upstreams, defaultUpstream }: Config): Shown[] {
  return Object.entries(upstreams).map(([name, { url, preset, hosts, accounts, limits }]) =>
    shown('upstream', name, {
      url: url ?? null,
      preset: preset ?? null,
      hosts,
      is_default: name === defaultUpstream,
      classes: Object.keys(limits),
      accounts: Object.keys(accounts).map((account) => `${name}/${account}`),
    }),
  )
}

function accountsOf({ upstreams }: Config): Shown[] {
  return Object.entries(upstreams).flatMap(([upstream, { accounts }]) =>
    Object.entries(accounts).map(([account, { id, credential, credentials }]) => {
      const name = `${upstream}/${account}`
      return shown('account', name, {
        upstream,
        vendor_id: id ?? null,
        credential: (credential ?? credentials) === undefined ? null : name,
      })
    }),
  )
}

function credentialsOf({ upstreams }: Config): Shown[] {
  return Object.entries(upstreams).flatMap(([upstream, { accounts }]) =>
    Object.entries(accounts).flatMap(([account, { credential, credentials = [] }]) => {
      const name = `${upstream}/${account}`
      const members = credentials.map((member) => ({ ...member, name: `${name}#${member.name}` }))
      const all = credential === undefined ? members : [{ ...credential, name }]
      return all.map((one) => shown('credential', one.name, { upstream, account: name, type: one.type ?? 'header' }))
    }),
  )
}
