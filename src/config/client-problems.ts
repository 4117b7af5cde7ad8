import { keyOf } from '../clients/keys.ts'
import type { ClientScope } from '../schema/client-schema.ts'
import { classesOf } from '../schema/limits.ts'
import { checkBudget, checkTeams } from './money-problems.ts'
import { checkName, didYouMean, type Path, type Report } from './problem.ts'
import type { Config } from '../schema/schema.ts'

export function checkClients(config: Config, report: Report): void {
  const issuers = new Map<string, string>()
  for (const [name, { issuer }] of Object.entries(config.tokenIssuers)) {
    const other = issuers.get(issuer)
    if (other !== undefined)
      report(['tokenIssuers', name, 'issuer'], `tokenIssuers.${other} has the same issuer; each may occur once`)
    issuers.set(issuer, name)
  }
  const owners = new Map<string, string>()
  const known = namesIn(config)
  for (const [name, client] of Object.entries(config.clients ?? {})) {
    const path = ['clients', name]
    for (const [index, key] of client.keys.entries()) {
      const { hash } = keyOf(key)
      const owner = owners.get(hash)
      if (owner !== undefined) report([...path, 'keys', index], `client "${owner}" has the same key`)
      owners.set(hash, name)
    }
    if (client.keys.length === 0 && client.tokens === undefined && client.certificates === undefined) {
      report([...path, 'keys'], 'it needs keys (npx sluice keys create), tokens or certificates to prove who it is')
    }
    checkScope(path, client, config, report, known)
  }
  checkTeams(config, report)
  checkShares(Object.entries(config.clients ?? {}), config.upstreams, (name, message) => {
    report(['clients', name, 'share'], message)
  })
}

/** The guaranteed shares of one account must not add up to more than all of it. If they do, reports the last client with a share of it. */
export function checkShares(
  clients: readonly (readonly [name: string, scope: ClientScope])[],
  upstreams: Config['upstreams'],
  report: (client: string, message: string) => void,
): void {
  const sharing = clients.flatMap(([name, { share, accounts, upstreams }], at) =>
    share === undefined ? [] : [{ at, name, share, accounts: accounts && new Set(accounts), upstreams }],
  )
  for (const [upstream, config] of Object.entries(upstreams)) {
    const ofUpstream = sharing.filter(({ upstreams }) => upstreams?.includes(upstream) !== false)
    // There may be thousands of both, so each account is looked at only with the shares of its own.
    const ofAll = ofUpstream.filter(({ accounts }) => accounts === undefined)
    const ofSome = Map.groupBy(
      ofUpstream.flatMap((one) => [...(one.accounts ?? [])].map((key) => ({ key, one }))),
      ({ key }) => key,
    )
    const sumOfAll = sumOf(ofAll)
    for (const account of Object.keys(config.accounts)) {
      const key = `${upstream}/${account}`
      const own = ofSome.get(key)?.map(({ one }) => one) ?? []
      if (sumOfAll + sumOf(own) <= 1 + 1e-9) continue
      const [last, lastOfAll] = [own.at(-1), ofAll.at(-1)]
      const { name } = (last?.at ?? -1) > (lastOfAll?.at ?? -1) ? last! : lastOfAll!
      report(name, `with this one, the shares of ${key} add up to more than 100%`)
    }
  }
}

function sumOf(sharing: readonly { readonly share: number }[]): number {
  return sharing.reduce((sum, { share }) => sum + share, 0)
}

/** What the scopes of clients may name. */
interface KnownNames {
  readonly accounts: ReadonlySet<string>
  readonly classes: ReadonlySet<string>
  readonly issuers: ReadonlySet<string>
  readonly teams: ReadonlySet<string>
  readonly upstreams: ReadonlySet<string>
}

function namesIn({ upstreams, tokenIssuers, teams }: Config): KnownNames {
  const accounts = Object.entries(upstreams).flatMap(([upstream, config]) =>
    Object.keys(config.accounts).map((account) => `${upstream}/${account}`),
  )
  return {
    accounts: new Set(accounts),
    classes: new Set(Object.values(upstreams).flatMap(classesOf)),
    issuers: new Set(Object.keys(tokenIssuers)),
    teams: new Set(Object.keys(teams)),
    upstreams: new Set(Object.keys(upstreams)),
  }
}

/**
 * Finds names that do not exist in the scope of a client, and settings that exclude one another. For many clients of one configuration,
 * give the names that it has.
 */
export function checkScope(
  path: Path,
  client: ClientScope,
  config: Config,
  report: Report,
  { accounts, classes, issuers, teams, upstreams } = namesIn(config),
): void {
  if (client.certificates !== undefined && config.server.tls?.clientCa === undefined) {
    report([...path, 'certificates'], 'server.tls.clientCa must say whose certificates are believed')
  }
  for (const [index, { issuer }] of (client.tokens ?? []).entries()) {
    checkName([...path, 'tokens', index, 'issuer'], issuer, issuers, 'there is no such entry in tokenIssuers', report)
  }
  checkBudget(path, client.budget, config, report)
  if (client.team !== undefined && !teams.has(client.team)) {
    report([...path, 'team'], `there is no such team${didYouMean(client.team, [...teams]) || '; add it to teams'}`)
  }
  for (const [index, upstream] of (client.upstreams ?? []).entries()) {
    checkName([...path, 'upstreams', index], upstream, upstreams, 'there is no such upstream', report)
  }
  for (const [index, account] of (client.accounts ?? []).entries()) {
    const at = [...path, 'accounts', index]
    checkName(at, account, accounts, 'there is no such account', report)
    if (accounts.has(account) && client.upstreams?.includes(account.split('/', 1)[0]!) === false)
      report(at, 'is of an upstream that this client may not use: see its upstreams')
  }
  for (const [index, className] of (client.classes ?? []).entries()) {
    checkName([...path, 'classes', index], className, classes, 'there is no such class', report)
  }
}
