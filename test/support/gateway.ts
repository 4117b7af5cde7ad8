import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { inject, onTestFinished } from 'vitest'
import type { FoundConfig } from '../../src/config/find.ts'
import { checkConfig } from '../../src/config/load.ts'
import type { Config } from '../../src/schema/schema.ts'
import { buildSnapshot, closeSnapshot } from '../../src/gateway/snapshot.ts'
import type { AccessLine, Log } from '../../src/observe/log.ts'
import { createLog } from '../../src/observe/log.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import type { Ledger } from '../../src/ledger/ledger.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import type { Reloaded } from '../../src/server/admin/status.ts'
import { type Running, type RunOptions, runGateway } from '../../src/process/run.ts'
import { buildApp } from '../../src/server/app.ts'
import { Proxy } from '../../src/server/proxy.ts'
import { Usage } from '../../src/usage/usage.ts'
import { SimulatedClock } from './simulated-clock.ts'
import { temporaryFolder } from './temporary-folder.ts'

export const ACCOUNT = 'acct1234'
export const TOKEN = `pat.${ACCOUNT}.tokenid.topsecret`

/** An empty folder, gone when the test is finished. */
export function newFolder(): string {
  const folder = temporaryFolder('test')
  onTestFinished(() => folder.remove())
  return folder.path
}

let prefixes = 0

/** Configurations of both stores, each time of an empty one. A busy machine may make Redis wait. */
export const stores = {
  'the embedded store': () => ({ kind: 'memory', dir: newFolder() }),
  Redis: () => ({
    kind: 'redis',
    url: inject('redisUrl'),
    prefix: `test-${process.pid}-${prefixes++}`,
    commandTimeout: '2s',
  }),
}

/** The parts of a configuration that nearly every test needs: one Harness account at `url`, all ports free ones. */
export function harnessConfig(url: string, upstream: object = {}, rest: object = {}): object {
  return {
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: {
      harness: {
        preset: 'harness',
        url,
        accounts: { prod: { id: ACCOUNT, credential: { value: TOKEN } } },
        ...upstream,
      },
    },
    ...rest,
  }
}

export interface TestGateway extends Running {
  /** The access lines so far. */
  readonly lines: readonly AccessLine[]
  metrics(): Promise<string>
  /** Reloads, with this as what is configured now. */
  reloadWith(config: object): Promise<Reloaded>
}

/** A gateway on free ports, with a store folder of its own unless the configuration names one, stopped when the test is finished. */
export function startGateway(config: object, options: Partial<RunOptions> = {}): Promise<TestGateway> {
  const dir = newFolder()
  const complete = (given: { store?: { kind?: string } }): object =>
    named(given.store?.kind === 'redis' ? given : { ...given, store: { dir, ...given.store } })
  return startConfigured(checkConfig(complete(config), 'test'), options, complete)
}

/** Adds the name by which raw requests of tests call the gateway. */
function named(config: object): object {
  const { server } = config as { server?: object }
  return { ...config, server: { hosts: ['x'], ...server } }
}

/** The same of a configuration that was read from a file, references and all. `complete` adds to each that is reloaded. */
export async function startConfigured(
  config: Config,
  options: Partial<RunOptions> = {},
  complete: (config: object) => object = (given) => given,
): Promise<TestGateway> {
  const { log, lines } = keptLog()
  let load = (): FoundConfig => ({ config, source: 'test' })
  const gateway = await runGateway(config, { log, load: () => load(), ...options })
  onTestFinished(() => gateway.stop())
  const reloadWith = (next: object): Promise<Reloaded> => {
    load = () => ({ config: checkConfig(complete(next), 'test'), source: 'test' })
    return gateway.reload()
  }
  return { ...gateway, lines, reloadWith, metrics: async () => (await fetch(`${gateway.adminUrl}/metrics`)).text() }
}

/** The port for clients alone, for tests that put a part of their own in the gateway's place; `change` before it listens. */
export async function startApp(
  config: object,
  parts: { clock?: SimulatedClock; ledger?: Ledger; change?: (app: ReturnType<typeof buildApp>) => void },
): Promise<Pick<TestGateway, 'url' | 'lines'>> {
  const { clock = new SimulatedClock(), ledger = new MemoryLedger(clock), change } = parts
  const { log, lines } = keptLog()
  const metrics = new Metrics()
  const services = { clock, random: Math.random, metrics, usage: new Usage({ metrics, clock }), log }
  const checked = checkConfig(named(config), 'test')
  const snapshot = buildSnapshot(checked, { ...services, ledger, onBreakerChange: () => undefined })
  const app = buildApp(new Proxy({ ...services, snapshot: () => snapshot }), checked.server)
  change?.(app)
  onTestFinished(async () => {
    app.server.closeAllConnections()
    await app.close()
    await closeSnapshot(snapshot)
  })
  return { url: await app.listen({ port: 0 }), lines }
}

function keptLog(): { log: Log; lines: readonly AccessLine[] } {
  const lines: AccessLine[] = []
  const log = createLog({ level: 'silent', format: 'json' })
  return { log: { ...log, access: (line) => void lines.push(line) }, lines }
}

export interface Seen {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly rawHeaders: readonly string[]
  readonly body: string
}

export interface TestUpstream {
  readonly url: string
  readonly seen: Seen[]
}

/** An upstream that reads every request whole, notes it, and then answers by `answer`; by an empty 200 if there is none. */
export function startUpstream(
  answer: (seen: Seen, response: ServerResponse) => unknown = (_, response) => response.end(),
): Promise<TestUpstream> {
  const seen: Seen[] = []
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    // A request that breaks off is no request.
    const pieces = await request.toArray().catch(() => undefined)
    if (pieces === undefined) return
    const { method = '', url = '', headers, rawHeaders } = request
    const one = { method, url, headers, rawHeaders, body: Buffer.concat(pieces).toString() }
    seen.push(one)
    await answer(one, response)
  }
  return startServer((request, response) => void serve(request, response)).then((url) => ({ url, seen }))
}

/** A bare HTTP server on a free port of loopback, gone when the test is finished. */
export async function startServer(listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
