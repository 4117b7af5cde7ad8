import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { freePort } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { service } from './compose.ts'
import { Started } from './process.ts'
import { adapt, readText } from './repository.ts'

export interface Series {
  readonly metric: Readonly<Record<string, string>>
  readonly value?: readonly [number, string]
  readonly values?: readonly (readonly [number, string])[]
}

export interface ExemplarSeries {
  readonly seriesLabels: Readonly<Record<string, string>>
  readonly exemplars: readonly { readonly labels: Readonly<Record<string, string>>; readonly timestamp: number }[]
}

export interface Rule {
  readonly name: string
  readonly health: 'ok' | 'err' | 'unknown'
  readonly lastError?: string
}

/** The values of a series, of now or over time. */
export function numbersOf({ value, values = [] }: Series): number[] {
  return [...(value === undefined ? [] : [value]), ...values].map(([, number]) => Number(number))
}

/** A real Prometheus with the configuration, the rules and the options of the Compose file, on a free port of loopback. */
export class PrometheusServer {
  readonly port: number
  readonly #process: Started
  readonly #cleanUp: () => void
  readonly #startedAtS = Date.now() / 1_000

  private constructor(port: number, process: Started, cleanUp: () => void) {
    this.port = port
    this.#process = process
    this.#cleanUp = cleanUp
  }

  /** `change` is made to the alerts. Every `interval` it scrapes, for as long at most, and all rules are evaluated. */
  static async start(
    gatewayAdminUrls: readonly string[],
    change: (alerts: string) => string = (alerts) => alerts,
    interval = '1s',
  ): Promise<PrometheusServer> {
    const folder = temporaryFolder('prometheus')
    const dir = folder.path
    const config = adapt(readText('deploy/prometheus/prometheus.yml'), {
      "'gateway:9090'": gatewayAdminUrls.map((url) => `'${new URL(url).host}'`).join(', '),
      'interval: 5s': `interval: ${interval}`,
    })
    writeFileSync(join(dir, 'prometheus.yml'), config)
    writeFileSync(join(dir, 'alerts.yml'), change(readText('deploy/prometheus/alerts.yml')))
    const port = await freePort()
    const options = (service('prometheus').command ?? []).map((option) =>
      option.replace('/etc/prometheus', dir).replace('=/prometheus', `=${dir}/data`),
    )
    const process = new Started(['prometheus', ...options, `--web.listen-address=127.0.0.1:${port}`], { cwd: dir })
    await process.answersAt(`http://127.0.0.1:${port}/-/ready`)
    return new PrometheusServer(port, process, () => folder.remove())
  }

  /** What a dashboard's instant query, or a rule, gets. Throws what Prometheus says against it. */
  query(expr: string): Promise<Series[]> {
    return this.#series('query', { query: expr })
  }

  /** What a graph of the time since the start gets: on a busy machine that may be minutes. */
  queryRange(expr: string): Promise<Series[]> {
    return this.#series('query_range', { query: expr, ...this.#sinceStart(), step: '1' })
  }

  exemplars(expr: string): Promise<ExemplarSeries[]> {
    return this.#get<ExemplarSeries[]>('query_exemplars', { query: expr, ...this.#sinceStart() })
  }

  labelValues(label: string, series: string): Promise<string[]> {
    return this.#get<string[]>(`label/${label}/values`, { 'match[]': series })
  }

  /** The alerts, once each has been evaluated. */
  async rules(): Promise<Rule[]> {
    for (;;) {
      const { groups } = await this.#get<{ groups: { rules: Rule[] }[] }>('rules', {})
      const rules = groups.flatMap(({ rules }) => rules)
      if (rules.every(({ health }) => health !== 'unknown')) return rules
      await pause(50)
    }
  }

  async targets(): Promise<{ health: string; lastError: string; labels: Record<string, string> }[]> {
    const { activeTargets } = await this.#get<{
      activeTargets: { health: string; lastError: string; labels: Record<string, string> }[]
    }>('targets', {})
    return activeTargets
  }

  /** Resolves once this expression has a result: the next scrapes have come, and the rules were evaluated. */
  async sees(expr: string): Promise<void> {
    while ((await this.query(expr)).length === 0) await pause(50)
  }

  async stop(): Promise<void> {
    await this.#process.stop()
    this.#cleanUp()
  }

  /** Whole steps back from now, so that the last of them shows the newest scrape. */
  #sinceStart(): { start: string; end: string } {
    const end = Date.now() / 1_000
    return { start: String(end - Math.ceil(end - this.#startedAtS)), end: String(end) }
  }

  async #series(endpoint: string, parameters: Record<string, string>): Promise<Series[]> {
    const { result } = await this.#get<{ result: Series[] }>(endpoint, parameters)
    return result
  }

  async #get<T>(endpoint: string, parameters: Record<string, string>): Promise<T> {
    const url = `http://127.0.0.1:${this.port}/api/v1/${endpoint}?${new URLSearchParams(parameters).toString()}`
    const response = await fetch(url)
    const { status, data, error } = (await response.json()) as { status: string; data: T; error?: string }
    if (status !== 'success') throw new Error(`${decodeURIComponent(url)}: ${error}`)
    return data
  }
}
