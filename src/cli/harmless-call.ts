import type { LookupFunction } from 'node:net'
import { accessLists, isAccessAllowed } from '../clients/network-access.ts'
import { presets } from '../config/presets/index.ts'
import { buildCredentialSet } from '../credentials/build-set.ts'
import { readFeedback } from '../ledger/feedback.ts'
import { withAccount } from '../gateway/outgoing.ts'
import { lookupOf } from '../gateway/snapshot.ts'
import { isLocalhost } from '../net/address.ts'
import { AddressError } from '../net/guarded-lookup.ts'
import { Metrics } from '../observe/metrics.ts'
import { allOfUndici } from '../packages/undici.ts'
import type { Config } from '../schema/schema.ts'
import { systemClock } from '../time/clock.ts'

const TIMEOUT_MS = 10_000
/** How far the clocks may be apart. Windows that are counted here should not be off by more; signatures of AWS allow minutes. */
const MOST_SKEW_MS = 5_000

type Upstream = Config['upstreams'][string]

/**
 * Makes one call that changes nothing with a credential of each account, directly to the vendor. Tells whether the vendor
 * accepts the credential, what the answer says about limits, and whether the clocks agree. The call is not counted in the
 * store. Never rejects. The look-up is that of the system unless it is given.
 */
export async function callVendors(
  all: Pick<Config, 'upstreams' | 'networkAccess'>,
  lookup?: LookupFunction,
): Promise<Finding[]> {
  const { upstreams } = all
  const services = { clock: systemClock, random: Math.random, metrics: new Metrics(undefined, { hasProcess: false }) }
  const call = async (name: string, upstream: Upstream, account: string): Promise<Finding[]> => {
    const what = `credential ${name}/${account}`
    const config = upstream.accounts[account]!
    const preset = upstream.preset === undefined ? undefined : presets[upstream.preset]
    if (preset?.harmlessCall === undefined) return untested(what, 'without a preset no harmless call is known')
    if (upstream.tls !== undefined) return untested(what, 'the upstream has a TLS configuration of its own')
    // Without the proxy the credential would go another way than the gateway sends it, and may not be allowed to.
    if (upstream.proxy !== undefined) return untested(what, 'the upstream is reached through a proxy')
    const { harmlessCall: path, harmlessHeaders } = preset
    const url = new URL(upstream.url!)
    const access = accessLists([all, upstream])
    if (!isAccessAllowed(url.origin + pathBelow(url, path), access)) return closed(what, url)
    const place = { upstream: name, account, header: upstream.credentialHeader, host: url.host }
    const set = buildCredentialSet(place, config, services)
    if (set === undefined) return untested(what, 'it has none')
    const guarded = lookupOf(upstream, access, url, lookup)
    return callWith(set.choose(), { upstream, id: config.id, path, what, headers: harmlessHeaders, lookup: guarded })
  }
  const calls = Object.entries(upstreams).flatMap(([name, upstream]) =>
    Object.keys(upstream.accounts).map((account) => call(name, upstream, account)),
  )
  return (await Promise.all(calls)).flat()
}

function closed(what: string, { host }: URL, more = ''): Finding[] {
  const todo = `change networkAccess${more}, if the gateway is to reach it`
  return untested(what, `the network access rules do not allow ${host}`, todo)
}

function pathBelow({ pathname }: URL, path: string): string {
  return pathname.replace(/\/$/, '') + path
}

function untested(what: string, why: string, todo = 'make a call through the gateway to try it'): Finding[] {
  return [{ level: 'warn', what, finding: `was not tried: ${why}`, todo }]
}

type Credential = ReturnType<NonNullable<ReturnType<typeof buildCredentialSet>>['choose']>

interface Call {
  readonly upstream: Upstream
  readonly id: string | undefined
  readonly path: string
  readonly what: string
  readonly headers: Readonly<Record<string, string>> | undefined
  readonly lookup: LookupFunction
}

async function callWith(
  credential: Credential,
  { upstream, id, path, what, headers: wanted, lookup }: Call,
): Promise<Finding[]> {
  const base = new URL(upstream.url!)
  const { accountQuery } = upstream
  const query = accountQuery === undefined ? '' : withAccount('', accountQuery, id, path)
  const request = {
    method: 'GET',
    path: pathBelow(base, path) + query,
    headers: id === undefined || upstream.accountHeader === undefined ? [] : [upstream.accountHeader, id],
    body: null,
    upgrade: null,
  }
  const { Agent, fetch } = allOfUndici()
  // It connects to addresses that the gateway may reach, and to no other that the same name has.
  const agent = new Agent({ connect: { lookup } })
  try {
    await credential.ready?.()
    credential.addTo(request, ROUTE)
    const headers = new Headers(wanted)
    for (let i = 0; i < request.headers.length; i += 2) headers.append(request.headers[i]!, request.headers[i + 1]!)
    const signal = AbortSignal.timeout(TIMEOUT_MS)
    const response = await fetch(base.origin + request.path, { headers, signal, redirect: 'manual', dispatcher: agent })
    const text = await response.text()
    return [verdict(what, response.status, text), ...clock(what, response), ...limits(what, upstream, response)]
  } catch (error) {
    if (error instanceof Error && error.cause instanceof AddressError) {
      const arePrivateAllowed = upstream.privateAddresses === 'allow' || isLocalhost(base.hostname)
      return closed(what, base, arePrivateAllowed ? '' : ', or set privateAddresses: allow at this upstream')
    }
    return [{ level: 'fail', what, finding: `no answer from ${base.host}: ${reasonOf(error)}`, todo: UNREACHABLE }]
  } finally {
    await agent.destroy()
  }
}

const UNREACHABLE = 'check the URL, DNS, the firewall and the proxy of this machine'

/** What `addTo` reads of a route: that the call gets the credential. */
const ROUTE = { credential: 'inject' } as Parameters<Credential['addTo']>[1]

/** Gives only the code of an error: its message may contain the URL, and the URL a secret. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown error'
  const { code } = (error.cause ?? error) as { code?: unknown }
  return typeof code === 'string' ? code : error.name
}

function verdict(what: string, status: number, text: string): Finding {
  // Slack answers a wrong token with 200, and says so in the body.
  const isRefused =
    status === 401 || status === 403 || (status === 200 && /"ok"\s*:\s*false/.test(text.slice(0, 4_096)))
  if (isRefused) {
    const todo = 'renew the secret, or point the configuration to the right one'
    return { level: 'fail', what, finding: `is refused by the vendor (${status})`, todo }
  }
  if (status >= 200 && status < 300) return { level: 'ok', what, finding: `is taken by the vendor (${status})` }
  const todo = 'try again; if it stays, check the URL'
  return { level: 'warn', what, finding: `the vendor answered ${status}`, todo }
}

function clock(what: string, response: Response): Finding[] {
  const date = Date.parse(response.headers.get('date') ?? '')
  if (Number.isNaN(date)) return []
  const skewMs = Math.abs(Date.now() - date)
  const name = what.replace('credential', 'clock against')
  if (skewMs <= MOST_SKEW_MS) return [{ level: 'ok', what: name, finding: 'agrees with the vendor’s Date' }]
  const finding = `is ${Math.round(skewMs / 1_000)} s off the vendor’s Date`
  return [{ level: 'warn', what: name, finding, todo: 'synchronise the clock of this machine (NTP)' }]
}

/** Compares limits. If the vendor's limit is lower than every configured one, the gateway would run into it. */
function limits(what: string, { limits: configured }: Upstream, response: Response): Finding[] {
  const fields = Object.fromEntries(response.headers)
  const reported = readFeedback(fields, systemClock.wall()).flatMap(({ limit }) => limit ?? [])
  if (reported.length === 0) return []
  const lowest = Math.min(...reported)
  const known = Object.values(configured ?? {}).flatMap((ofClass) => ofClass.flatMap(({ requests }) => requests ?? []))
  const name = what.replace('credential', 'limits of')
  if (known.length > 0 && Math.min(...known) <= lowest) {
    return [{ level: 'ok', what: name, finding: `the vendor says ${lowest}, which no lower limit contradicts` }]
  }
  const finding = `the vendor says ${lowest}, and every configured limit is higher`
  return [{ level: 'warn', what: name, finding, todo: `set limits of this upstream to at most ${lowest}` }]
}

/** What `sluice doctor` found in one place. `todo` says what to do, unless all is well. It never contains a secret. */
export interface Finding {
  readonly level: 'ok' | 'warn' | 'fail'
  readonly what: string
  readonly finding: string
  readonly todo?: string
}
