import { setTimeout as pause } from 'node:timers/promises'
import { expect, it, onTestFinished } from 'vitest'
import { parse } from 'yaml'
import { runCommand } from '../support/command-line.ts'
import { freePort } from '../support/find-redis.ts'
import { hasPrometheus } from '../support/find-prometheus.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { hasProgram } from '../support/packages.ts'
import { type AskedQuery, askedQueries, FAULTS } from './board-faults.ts'
import { interpolate } from './boards.ts'
import {
  ANY,
  base,
  Faults,
  startBursty,
  startFlushed,
  startHeldUp,
  startMistaken,
  startRestless,
  startUnread,
  startWithCertificates,
  startWithoutOneWorker,
} from './faults.ts'
import { numbersOf, PrometheusServer } from './prometheus-server.ts'
import { readText } from './repository.ts'
import { startThree } from './three-gateways.ts'

/**
 * The alerts with shorter times, so that the faults need not last. Up to a quarter of an hour becomes a sixtieth of it; longer
 * spans, in which something must happen several times, a sixth. What is looked back on is ten seconds at least, since some scrapes
 * fail: of a gateway with a worker that stands still, and on a busy machine.
 */
function hurried(alerts: string): string {
  const units = { m: 60, h: 3_600, d: 86_400 } as const
  return alerts.replaceAll(/(for: |\[|offset )(\d+)([mhd])/g, (_, before: string, count: string, unit: string) => {
    const seconds = Number(count) * units[unit as keyof typeof units]
    return `${before}${seconds <= 900 ? Math.max(before === '[' ? 10 : 1, seconds / 60) : seconds / 6}s`
  })
}

const rules = (
  parse(readText('deploy/prometheus/alerts.yml')) as {
    groups: { rules: { alert?: string; record?: string }[] }[]
  }
).groups.flatMap((group) => group.rules)
const alertNames = rules.flatMap(({ alert }) => alert ?? [])
const recordNames = rules.flatMap(({ record }) => record ?? [])
/** They fire once Redis is gone, after all others. */
const LAST_ALERTS = new Set(['SluiceStoreErrors', 'SluiceStoreDegraded', 'SluiceUsageUnwritten'])

interface Seen {
  /** Scrapes of each gateway. */
  readonly after: number
  readonly points: number
  /** The greatest value, which is what the fault shows. */
  readonly value: number
}

/** What alerts, recording rules and panels are to show, until each has. */
class Watch {
  readonly #prometheus: PrometheusServer
  readonly #gateways: string
  readonly alerts = new Set(alertNames)
  readonly records = new Set(recordNames)
  readonly queries = new Set(askedQueries())
  readonly fired = new Map<string, number>()
  readonly seen = new Map<AskedQuery, Seen>()

  /** Time is counted in scrapes of these gateways that succeeded, so that a busy machine has as many as a quiet one. */
  constructor(prometheus: PrometheusServer, gateways: readonly { adminUrl: string }[]) {
    this.#prometheus = prometheus
    this.#gateways = gateways.map(({ adminUrl }) => new URL(adminUrl).host).join('|')
  }

  /**
   * Looks until all of it has been seen, or nothing new was in a hundred scrapes. First come the alerts and the rules, which cost
   * one query a look; the panels follow once these are all there. The two functions choose what to wait for.
   */
  async until(isAlertOfNow: (name: string) => boolean, isQueryOfNow: (query: AskedQuery) => boolean): Promise<void> {
    const alertsLeft = (): number => [...this.alerts].filter(isAlertOfNow).length + this.records.size
    await this.#repeat(alertsLeft, () => this.#lookAtRules())
    const queriesLeft = (): AskedQuery[] => [...this.queries].filter(isQueryOfNow)
    await this.#repeat(
      () => queriesLeft().length,
      () => this.#lookAtPanels(queriesLeft()),
    )
    // Some alerts are for what comes late.
    await this.#lookAtRules()
  }

  async #repeat(left: () => number, look: () => Promise<void>): Promise<void> {
    let before = left()
    let changedAt = await this.#scrapes()
    while (left() > 0 && (await this.#scrapes()) - changedAt < 100) {
      await look()
      await pause(500)
      if (left() < before) changedAt = await this.#scrapes()
      before = left()
    }
  }

  async #scrapes(): Promise<number> {
    const [series] = await this.#prometheus.query(`min(sum_over_time(up{instance=~"${this.#gateways}"}[1d]))`)
    return Number(series?.value?.[1] ?? 0)
  }

  /** Sees also what fired, or was there, between two looks. */
  async #lookAtRules(): Promise<void> {
    const after = await this.#scrapes()
    for (const { metric } of await this.#prometheus.query('count_over_time(ALERTS{alertstate="firing"}[1d])')) {
      const name = metric['alertname']!
      if (this.alerts.delete(name)) this.fired.set(name, after)
    }
    for (const name of this.records)
      if ((await this.#prometheus.query(`max_over_time(${name}[1d])`)).flatMap(numbersOf).some(Number.isFinite))
        this.records.delete(name)
  }

  /** Asks for all the time since the start, as for a graph: what a number shows may have been there between two looks. */
  async #lookAtPanels(queries: readonly AskedQuery[]): Promise<void> {
    for (const query of queries) {
      const values = (
        await this.#prometheus.queryRange(interpolate(query.target.expr, FAULTS[query.fault].variables))
      ).flatMap(numbersOf)
      if (!values.some(query.tells)) continue
      const value = Math.max(...values.filter(Number.isFinite))
      this.seen.set(query, { after: await this.#scrapes(), points: values.length, value })
      this.queries.delete(query)
    }
  }

  print(): void {
    console.table(
      Object.fromEntries(alertNames.map((name) => [name, { 'fired after scrapes': this.fired.get(name) ?? 'not' }])),
    )
    const rows = [...this.seen, ...[...this.queries].map((query) => [query, undefined] as const)]
    console.table(
      rows.map(([{ name, fault }, seen]) => ({
        query: name,
        fault,
        'after scrapes': seen?.after ?? 'not',
        points: seen?.points ?? 0,
        greatest: Number((seen?.value ?? 0).toPrecision(3)),
      })),
    )
  }
}

it.skipIf(!hasPrometheus() || !hasProgram('openssl'))(
  'every alert fires, and every panel has data, in the fault that it is for, in a real Prometheus, with shorter times',
  // Ends what hangs. Patience is counted in scrapes, of which a busy machine has few a minute.
  { timeout: 1_800_000 },
  async () => {
    const faults = new Faults()
    onTestFinished(() => faults.end())
    const { gateways: three, inject, loseRedis } = await startThree(faults)
    const leaving = await startGateway(base(ANY))
    const gateways = [
      ...three,
      leaving,
      await startFlushed(faults),
      await startMistaken(faults),
      await startBursty(faults),
      await startHeldUp(faults),
      await startWithoutOneWorker(faults),
      await startUnread(faults),
      ...(await startWithCertificates()),
    ]
    const restlessPort = await freePort()
    const urls = [...gateways.map(({ adminUrl }) => adminUrl), `http://127.0.0.1:${restlessPort}`]
    const prometheus = await PrometheusServer.start(urls, hurried, '2s')
    onTestFinished(() => prometheus.stop())
    // The first event of a counter is seen only if there was a sample from before.
    for (const { adminUrl } of [...three, leaving])
      await prometheus.sees(`sluice_build_info{instance="${new URL(adminUrl).host}"}`)
    await inject()
    await leaving.stop()
    const canLimitMemory = await startRestless(restlessPort, prometheus)
    await three[2].reloadWith({ upstreams: 'wrong' })

    const watch = new Watch(prometheus, three)
    if (!canLimitMemory) watch.alerts.delete('SluiceMemoryHigh')
    const isLast = ({ fault }: AskedQuery): boolean => 'isLast' in FAULTS[fault]
    await watch.until(
      (name) => !LAST_ALERTS.has(name),
      (query) => !isLast(query),
    )
    const told = await storiesElsewhere(prometheus, three)
    await loseRedis()
    await watch.until((name) => LAST_ALERTS.has(name), isLast)
    watch.print()
    console.table(told)
    expect([...watch.alerts], 'alerts that did not fire').toEqual([])
    expect([...watch.records], 'rules without data').toEqual([])
    expect(
      [...watch.queries].map(({ name, fault }) => `${name}: ${fault}`),
      'queries without data',
    ).toEqual([])
    for (const { story } of told) expect(story).toMatch(/^told by /)
  },
)

/**
 * For each query with exemplars, the newest call behind it that one of the gateways served; and what `sluice request` says of it
 * at another gateway.
 */
async function storiesElsewhere(
  prometheus: PrometheusServer,
  gateways: readonly TestGateway[],
): Promise<{ query: string; id: string; story: string }[]> {
  const hosts = gateways.map(({ adminUrl }) => new URL(adminUrl).host)
  const told: { query: string; id: string; story: string }[] = []
  for (const { name, target, fault } of askedQueries()) {
    if (target.exemplar !== true || 'isLast' in FAULTS[fault]) continue
    const variables = { ...FAULTS[fault].variables, instance: hosts.join('|') }
    const found = (await prometheus.exemplars(interpolate(target.expr, variables)))
      .flatMap(({ seriesLabels, exemplars }) =>
        exemplars.map(({ labels, timestamp }) => ({
          servedBy: hosts.indexOf(seriesLabels['instance'] ?? ''),
          labels,
          timestamp,
        })),
      )
      .toSorted((a, b) => b.timestamp - a.timestamp)[0]
    const id = found?.labels['correlation_id'] ?? 'none'
    const other = gateways[((found?.servedBy ?? 0) + 1) % gateways.length]!
    const { stdout, stderr } = await runCommand(['request', id, '--url', other.adminUrl])
    const [, at] = /, at (\w+)$/m.exec(stdout) ?? []
    const isElsewhere = at === ['one', 'two', 'three'][found?.servedBy ?? -1] && /^result {4}\S/m.test(stdout)
    told.push({ query: name, id, story: isElsewhere ? `told by ${at}` : `${stdout}${stderr}` })
  }
  return told
}
