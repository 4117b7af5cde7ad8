import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { temporaryFolder } from '../support/temporary-folder.ts'

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const LINES_KEPT = 4_000
const LINES_TOLD = 20
/** Idle connections are closed after half a minute, which is the longest of all timeouts; a busy machine is late. */
const REST_MS = 120_000

/** A gateway process, seen from outside. */
export class SoakedGateway {
  readonly url: string
  readonly #adminUrl: string
  readonly #child: ChildProcess
  /** The latest of its log. */
  readonly #lines: string[] = []
  stderr = ''

  constructor(child: ChildProcess, url: string, adminUrl: string) {
    this.#child = child
    this.url = url
    this.#adminUrl = adminUrl
    child.stderr?.on('data', (chunk) => void (this.stderr += String(chunk)))
    createInterface({ input: child.stdout! }).on('line', (line) => {
      this.#lines.push(line)
      if (this.#lines.length > LINES_KEPT) this.#lines.splice(0, LINES_KEPT / 2)
    })
  }

  /** How its process ended, with the last that it said; undefined while it runs, as it should to the end. */
  get end(): string | undefined {
    const { exitCode, signalCode } = this.#child
    if (exitCode === null && signalCode === null) return undefined
    return [`it ended by ${signalCode ?? exitCode}`, this.stderr, ...this.#lines.slice(-LINES_TOLD)].join('\n')
  }

  get pid(): number {
    return this.#child.pid!
  }

  /** What the log says of the call to that path. */
  lineOf(path: string): string {
    return this.#lines.findLast((line) => line.includes(`"path":"${path}"`)) ?? 'no line'
  }

  /** Its memory, as the system counts it. */
  rss(): number {
    const [, kilobytes = 'NaN'] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${this.#child.pid}/status`, 'utf8')) ?? []
    return Number(kilobytes) * 1_024
  }

  async read(series: string): Promise<number> {
    return valueOf(await this.#metrics(), series)
  }

  /** What is held once everything has ended: waits for that, but not for ever. */
  async rest(idleTimers: number): Promise<Record<string, number>> {
    const until = performance.now() + REST_MS
    for (;;) {
      const metrics = await this.#metrics()
      const left = {
        permits: sumOf(metrics, 'sluice_in_flight'),
        'queue places': sumOf(metrics, 'sluice_queue_depth'),
        'concurrent places': sumOf(metrics, 'sluice_quota_used', 'window="in flight'),
        'calls without a connection': sumOf(metrics, 'sluice_connection_waiting'),
        'upstream sockets': sumOf(metrics, 'sluice_upstream_connections'),
        'client sockets': sumOf(metrics, 'sluice_client_connections'),
        WebSockets: sumOf(metrics, 'sluice_websockets'),
        timers: Math.max(0, valueOf(metrics, 'nodejs_active_resources{type="Timeout"}') - idleTimers),
      }
      if (performance.now() > until || Object.values(left).every((count) => count === 0)) return left
      await pause(200)
    }
  }

  async stop(): Promise<void> {
    if (this.end !== undefined) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    await ended
  }

  async #metrics(): Promise<string> {
    try {
      return await (await fetch(`${this.#adminUrl}/metrics`, { headers: { connection: 'close' } })).text()
    } catch (error) {
      // The end of a process is known a little later than its sockets are closed.
      await pause(1_000)
      throw new Error(`the gateway tells no metrics: ${this.end ?? `it runs\n${this.stderr}`}`, { cause: error })
    }
  }
}

export async function startSoakedGateway(config: object): Promise<SoakedGateway> {
  const folder = temporaryFolder('soak')
  const file = join(folder.path, 'sluice.yaml')
  writeFileSync(file, stringify(config))
  const child = spawn(process.execPath, [MAIN, 'start', '--config', file], { cwd: folder.path })
  child.once('exit', () => folder.remove())
  const lines = createInterface({ input: child.stdout })
  for await (const line of lines) {
    if (!line.includes('"msg":"listening"')) continue
    const { url, admin } = JSON.parse(line) as { url: string; admin: string }
    lines.close()
    return new SoakedGateway(child, url, admin)
  }
  throw new Error(`the gateway did not start: ${String(child.stderr.read())}`)
}

/** The value of one series, its labels exactly as they are given. */
function valueOf(metrics: string, series: string): number {
  return Number(new RegExp(`^${RegExp.escape(series)} (\\S+)`, 'm').exec(metrics)?.[1] ?? 0)
}

/** The sum of all series of a metric, or of those with a label. */
function sumOf(metrics: string, name: string, label = ''): number {
  let sum = 0
  for (const [, labels = '', value] of metrics.matchAll(new RegExp(`^${name}(\\{.*\\})? (\\S+)`, 'gm'))) {
    if (labels.includes(label)) sum += Number(value)
  }
  return sum
}
