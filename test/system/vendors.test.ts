import type { ServerResponse } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { newFolder, type Seen, startApp, startUpstream } from '../support/gateway.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { Aligned, LeakyBucket, Rolling, type Vendor } from '../support/vendors.ts'

/*
 * A gateway with a preset before a real server that counts and refuses as the vendor's page says. Both go by one simulated clock. More
 * clients than there is quota for call without a pause. A share is of what the vendor gives in the time; of a leaky bucket, of what leaks.
 */

interface Saturation {
  readonly preset: string
  readonly upstream?: object
  readonly vendor: (clock: SimulatedClock) => Vendor
  /** The next call of a client. */
  readonly call: (random: () => number) => { method: string; path: string; body?: object }
  readonly clients: number
  readonly forMs: number
  readonly stepMs: number
}

const LATENCY_MS = 200

async function saturate({ preset, upstream = {}, vendor, call, clients, forMs, stepMs }: Saturation) {
  // A full hour.
  const clock = new SimulatedClock(1_700_002_800_000)
  const judge = vendor(clock)
  const random = seededRandom(1)
  let [events, refused, counted, isOver] = [0, 0, 0, false]
  const { url } = await startUpstream(({ method, url, body }: Seen, response: ServerResponse) => {
    const { status, headers, units, refund, body: answer = {} } = judge({ method, path: url, body }, clock.wall())
    events++
    if (units === undefined) refused++
    clock.schedule(LATENCY_MS, () => {
      if (!isOver) counted += (units ?? 0) - (refund?.() ?? 0)
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(answer))
      events++
    })
  })
  const gateway = await startApp(
    {
      server: { port: 0, maxWaiting: 1_000 },
      store: { dir: newFolder() },
      upstreams: {
        it: {
          preset,
          queue: { maxWait: '24h', maxWaiting: 1_000 },
          accounts: { main: { credential: { value: 'secret' } } },
          ...upstream,
          url,
        },
      },
    },
    { clock },
  )
  const statuses = new Map<number, number>()
  const client = async (): Promise<void> => {
    while (!isOver) {
      const { method, path, body } = call(random)
      const response = await fetch(`${gateway.url}/it${path}`, {
        method,
        ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
      }).catch(() => undefined)
      await response?.arrayBuffer().catch(() => undefined)
      events++
      if (response !== undefined) statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1)
    }
  }
  // Until nothing happens any more: then everybody waits for the clock.
  const quiet = async (): Promise<void> => {
    for (let calm = 0; calm < 2;) {
      const before = events
      await pause(1)
      calm = events === before ? calm + 1 : 0
    }
  }
  for (let i = 0; i < clients; i++) void client()
  for (let passed = 0; passed < forMs; passed += stepMs) {
    await quiet()
    await clock.advance(stepMs)
  }
  await quiet()
  isOver = true
  return { refused, counted, statuses: Object.fromEntries(statuses) }
}

function shown(what: string, share: number, refused: number): void {
  console.log(`${what}: ${(100 * share).toFixed(1)} % used, ${refused} refused`)
}

const MINUTE = 60_000
const HOUR = 3_600_000

/** https://help.shopify.com/en/api/graphql-admin-api/call-limit, with the numbers of the standard plan */
function shopify(clock: SimulatedClock): Vendor {
  const points = new LeakyBucket(2_000, 100, clock)
  const calls = new LeakyBucket(40, 2, clock)
  return ({ path, body }, now) => {
    if (!path.endsWith('/graphql.json')) {
      const fits = calls.add(now, 1)
      const bucket = { 'x-shopify-shop-api-call-limit': `${Math.ceil(calls.level(now))}/${calls.size}` }
      return fits
        ? { status: 200, units: 1, headers: bucket }
        : { status: 429, headers: { ...bucket, 'retry-after': '2.0' } }
    }
    const { requested, actual } = (JSON.parse(body) as { variables: { requested: number; actual: number } }).variables
    const answer = (fits: boolean): object => ({
      ...(fits ? { data: {} } : { errors: [{ message: 'Throttled', extensions: { code: 'THROTTLED' } }] }),
      extensions: {
        cost: {
          requestedQueryCost: requested,
          actualQueryCost: fits ? actual : null,
          throttleStatus: { maximumAvailable: 2_000, currentlyAvailable: 0, restoreRate: 100 },
        },
      },
    })
    if (!points.add(now, requested)) return { status: 200, body: answer(false) }
    const refund = (): number => {
      points.add(clock.wall(), actual - requested)
      return requested - actual
    }
    return { status: 200, units: requested, refund, body: answer(true) }
  }
}

/** https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines, of a free account */
function hubspot(): Vendor {
  const [burst, search] = [new Rolling(100, 10_000), new Rolling(5, 1_000)]
  const refusal = (policyName: string): object => ({ status: 'error', errorType: 'RATE_LIMIT', policyName })
  return ({ path }, now) => {
    const isSearch = path.endsWith('/search')
    if (isSearch && search.left(now) < 1) return { status: 429, body: refusal('SECONDLY') }
    const left = burst.left(now)
    const headers = {
      'x-hubspot-ratelimit-max': '100',
      'x-hubspot-ratelimit-remaining': String(Math.max(0, left - 1)),
      'x-hubspot-ratelimit-interval-milliseconds': '10000',
    }
    if (left < 1) return { status: 429, headers, body: refusal('TEN_SECONDLY_ROLLING') }
    burst.count(now)
    if (isSearch) search.count(now)
    return { status: 200, units: 1, headers: isSearch ? {} : headers }
  }
}

/** https://docs.gitlab.com/user/gitlab_com/rate_limits/; headers tell only of the limit in front of the application. */
function gitlab(): Vendor {
  const front = new Aligned(2_000, MINUTE)
  const own: Readonly<Record<string, Aligned>> = {
    'POST /projects/7/issues/1/notes': new Aligned(60, MINUTE),
    'GET /groups': new Aligned(50, MINUTE),
  }
  return ({ method, path }, now) => {
    const headers = {
      'ratelimit-limit': '2000',
      'ratelimit-name': 'throttle_authenticated_api',
      'ratelimit-remaining': String(Math.max(0, front.left(now) - 1)),
      'ratelimit-reset': String(Math.ceil((now + front.resetMs(now)) / 1_000)),
    }
    const limits = [front, own[`${method} ${path}`]!]
    const full = limits.find((limit) => limit.left(now) < 1)
    if (full !== undefined)
      return { status: 429, headers: { ...headers, 'retry-after': String(Math.ceil(full.resetMs(now) / 1_000)) } }
    for (const limit of limits) limit.count(now)
    return { status: 200, units: 1, headers }
  }
}

/** https://docs.datadoghq.com/api/latest/rate-limits/: periods are aligned to the calendar, and numbers are in the headers. */
function datadog(): Vendor {
  const limit = new Aligned(60, MINUTE)
  return (_, now) => {
    const left = limit.left(now)
    const headers = {
      'x-ratelimit-limit': '60',
      'x-ratelimit-period': '60',
      'x-ratelimit-remaining': String(Math.max(0, left - 1)),
      'x-ratelimit-reset': String(Math.ceil(limit.resetMs(now) / 1_000)),
      'x-ratelimit-name': 'monitors',
    }
    if (left < 1) return { status: 429, headers, body: { errors: ['Too many requests'] } }
    limit.count(now)
    return { status: 200, units: 1, headers }
  }
}

/** The points of https://developer.atlassian.com/cloud/jira/platform/rate-limiting/, by the hour in UTC. */
const atlassian = (product: string, points: number) => (): Vendor => {
  const limit = new Aligned(65_000, HOUR)
  return (_, now) => {
    const left = limit.left(now)
    if (left < points) {
      const reset = limit.resetMs(now)
      const headers = {
        'ratelimit-reason': `${product}-quota-global-based`,
        'retry-after': String(Math.ceil(reset / 1_000)),
        'x-ratelimit-reset': new Date(now + reset).toISOString(),
      }
      return { status: 429, headers }
    }
    limit.count(now, points)
    // What remains is told only when a fifth is left. What begins with Beta- is not enforced.
    const quota = {
      'ratelimit-policy': '"global-app-quota";q=65000;w=3600',
      'beta-ratelimit': '"tenant-app-quota";r=0;t=60',
    }
    const low =
      left < 13_000
        ? { ratelimit: `"global-app-quota";r=${left - points};t=${Math.ceil(limit.resetMs(now) / 1_000)}` }
        : {}
    return { status: 200, units: points, headers: { ...quota, ...low } }
  }
}

const graphql = (dearest: number) => (random: () => number) => {
  const requested = Math.ceil(dearest * (0.1 + 0.9 * random()))
  const body = {
    query: '{ shop { name } }',
    variables: { requested, actual: Math.ceil(requested * (0.2 + 0.8 * random())) },
  }
  return { method: 'POST', path: '/admin/api/2026-10/graphql.json', body }
}

describe('before a vendor that counts as its page says', () => {
  it('the Shopify preset fills the bucket of calls', async () => {
    const forMs = 200_000
    const { refused, counted, statuses } = await saturate({
      preset: 'shopify',
      vendor: shopify,
      call: () => ({ method: 'GET', path: '/admin/api/2026-10/products.json' }),
      clients: 45,
      forMs,
      stepMs: 1_000,
    })
    const share = counted / ((2 * forMs) / 1_000)
    shown('Shopify REST', share, refused)
    expect(refused).toBe(0)
    expect(statuses).toEqual({ 200: expect.any(Number) as number })
    expect(share).toBeGreaterThan(0.9)
  })

  it.each([
    ['of which one may cost as much as any', 1_000, 1_000, 0.5],
    ['of which none costs more than 100', 100, 100, 0.9],
  ])('the Shopify preset fills the bucket of points with queries %s', async (_, dearest, reserve, least) => {
    const forMs = 100_000
    const cost = { response: { values: { cost: { body: '/extensions/cost/actualQueryCost' } } }, reserve }
    const limits = { graphql: [{ requests: 2_000, window: '20s', cost }] }
    const { refused, counted } = await saturate({
      preset: 'shopify',
      upstream: reserve === 1_000 ? {} : { limits },
      vendor: shopify,
      call: graphql(dearest),
      clients: 45,
      forMs,
      stepMs: 250,
    })
    const share = counted / ((100 * forMs) / 1_000)
    shown(`Shopify GraphQL, ${reserve} reserved`, share, refused)
    expect(refused).toBe(0)
    expect(share).toBeGreaterThan(least)
  })

  it('the HubSpot preset keeps the ten seconds, and the second of searches', async () => {
    const forMs = 40_000
    const { refused, counted } = await saturate({
      preset: 'hubspot',
      vendor: hubspot,
      call: (random) =>
        random() < 0.2
          ? { method: 'POST', path: '/crm/v3/objects/deals/search', body: {} }
          : { method: 'GET', path: '/crm/v3/objects/deals' },
      clients: 120,
      forMs,
      stepMs: 250,
    })
    const share = counted / ((100 * forMs) / 10_000)
    shown('HubSpot', share, refused)
    expect(refused).toBe(0)
    expect(share).toBeGreaterThan(0.9)
  })

  it('the GitLab preset keeps limits of single endpoints, of which headers say nothing', async () => {
    const forMs = 3 * MINUTE
    const { refused, counted } = await saturate({
      preset: 'gitlab',
      vendor: gitlab,
      call: (random) =>
        random() < 0.5
          ? { method: 'POST', path: '/projects/7/issues/1/notes', body: {} }
          : { method: 'GET', path: '/groups' },
      clients: 150,
      forMs,
      stepMs: 1_000,
    })
    const share = counted / ((110 * forMs) / MINUTE)
    shown('GitLab', share, refused)
    expect(refused).toBe(0)
    expect(share).toBeGreaterThan(0.9)
  })

  it('the Datadog preset keeps a limit that its headers told, from one border to the next', async () => {
    const forMs = 3 * MINUTE
    const { refused, counted } = await saturate({
      preset: 'datadog',
      upstream: {
        limits: { monitor: [{ requests: 60, window: '60s', kind: 'calendar' }] },
        routes: [{ method: 'GET', path: '/api/v1/monitor', class: 'monitor' }],
      },
      vendor: datadog,
      call: () => ({ method: 'GET', path: '/api/v1/monitor' }),
      clients: 70,
      forMs,
      stepMs: 1_000,
    })
    const share = counted / ((60 * forMs) / MINUTE)
    shown('Datadog', share, refused)
    expect(refused).toBe(0)
    expect(share).toBeGreaterThan(0.9)
  })

  it.each([
    ['jira', '/rest/api/3/group/member', 101],
    ['confluence', '/wiki/rest/api/group', 401],
  ])('the %s preset keeps the points of an hour', async (preset, path, points) => {
    const forMs = 2 * HOUR
    const { refused, counted } = await saturate({
      preset,
      vendor: atlassian(preset, points),
      call: () => ({ method: 'GET', path }),
      clients: 60,
      forMs,
      stepMs: 30_000,
    })
    const share = counted / ((65_000 * forMs) / HOUR)
    shown(preset, share, refused)
    expect(refused).toBe(0)
    expect(share).toBeGreaterThan(0.9)
  })
})
