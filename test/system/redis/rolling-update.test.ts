import { Agent, request } from 'node:http'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { startSandbox } from '../../../src/sandbox/sandbox.ts'
import { type Slot, startBalancer } from '../../support/balancer.ts'
import { ACCOUNT, harnessConfig, newFolder } from '../../support/gateway.ts'
import { hasProgram } from '../../support/packages.ts'
import { Program } from '../../support/process.ts'

const PATH = '/harness/ng/api/projects'
const LIMIT = { requests: 60, windowMs: 2_000 }
const UNLIMITED = { requests: 1_000_000, windowMs: 1_000 }
/** Twice as many as there is quota for, so that at each gateway calls wait for their turn at any time. */
const CLIENTS = 24
const WAIT = { timeout: 120_000 }

/**
 * The program of an older release, as `npm run rolling-update -- --old COMMIT` starts this. Without it the old gateways are of this
 * tree, too, and replaced all the same.
 */
const OLD = process.env['SLUICE_OLD_RELEASE']
const RELEASES = {
  old: [process.execPath, OLD ?? inject('program')],
  new: [process.execPath, inject('program')],
}

describe.skipIf(!hasProgram('haproxy'))('gateways behind HAProxy on one Redis, under load', () => {
  it('lose no call and grant no quota twice while they are replaced, and from three become five, then two', async () => {
    const sandbox = await startSandbox({ limits: { read: LIMIT, write: UNLIMITED } })
    onTestFinished(() => sandbox.stop())
    sandbox.setFaults({ latencyMs: { min: 5, max: 300 } })
    // An older release may not know server.shutdownDelay. Then HAProxy has to try the next gateway where nobody listens.
    const balancer = await startBalancer(5, { isRetrying: OLD !== undefined })
    const start = startsOf(sandbox.url)
    const running: Program[] = await Promise.all([0, 1, 2].map((i) => start('old', balancer.slots[i]!)))
    const stop = async (i: number): Promise<void> => {
      running[i]!.kill('SIGTERM')
      expect(await running[i]!.ended).toEqual({ code: 0, signal: null })
    }
    await expect.poll(balancer.up, WAIT).toEqual([0, 1, 2])

    const load = new Load(balancer.url)
    for (const i of [0, 1, 2]) {
      await load.goesOn()
      await stop(i)
      running[i] = await start('new', balancer.slots[i]!)
      await expect.poll(balancer.up, WAIT).toEqual([0, 1, 2])
    }
    await load.goesOn()
    running.push(...(await Promise.all([3, 4].map((i) => start('new', balancer.slots[i]!)))))
    await expect.poll(balancer.up, WAIT).toEqual([0, 1, 2, 3, 4])
    await load.goesOn()
    await Promise.all([0, 1, 2].map(stop))
    await load.goesOn()
    const answered = await load.stop()

    const { read, write } = sandbox.counts().accounts[ACCOUNT]!
    console.log(
      `${answered.read} reads, ${answered.write} writes, at most ${read!.worst} of ${LIMIT.requests} in a window`,
    )
    expect(load.lost).toEqual([])
    expect(read).toMatchObject({ throttled: 0, accepted: answered.read })
    expect(read!.worst).toBeLessThanOrEqual(LIMIT.requests)
    expect(write).toMatchObject({ accepted: answered.write })
  })
})

/** Starts gateways of a release at a slot of the balancer. */
function startsOf(upstream: string) {
  const prefix = `rolling-${process.pid}-${Math.random()}`
  return async (release: keyof typeof RELEASES, { port, adminPort }: Slot): Promise<Program> => {
    const cwd = newFolder()
    const limits = {
      read: [{ requests: LIMIT.requests, window: `${LIMIT.windowMs}ms` }],
      write: [{ requests: UNLIMITED.requests, window: `${UNLIMITED.windowMs}ms` }],
    }
    const config = harnessConfig(
      upstream,
      { limits, queue: { maxWait: '60s' }, retry: { retries: 0 } },
      {
        server: { port, ...(release === 'old' && OLD !== undefined ? {} : { shutdownDelay: '10s' }) },
        admin: { port: adminPort },
        store: { kind: 'redis', url: inject('redisUrl'), prefix, commandTimeout: '2s' },
      },
    )
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
    const program = new Program(['start'], { cwd, command: RELEASES[release] })
    await program.line(/"msg":"listening"/)
    return program
  }
}

/**
 * Clients that call again as soon as they are answered. Most read, over connections that they keep. Every fourth writes, each
 * time over a new connection, for which HAProxy makes a new one, too.
 */
class Load {
  readonly lost: string[] = []
  readonly #agent = new Agent({ keepAlive: true })
  readonly #answered = { read: 0, write: 0 }
  readonly #clients: Promise<void>[]
  #isOver = false

  constructor(url: string) {
    this.#clients = Array.from({ length: CLIENTS }, (_, i) => this.#client(url, i % 4 === 0 ? 'write' : 'read'))
  }

  /** Resolves when another hundred calls were answered. */
  async goesOn(): Promise<void> {
    const until = this.#answered.read + 100
    await expect.poll(() => this.#answered.read, WAIT).toBeGreaterThan(until)
  }

  async stop(): Promise<{ read: number; write: number }> {
    this.#isOver = true
    await Promise.all(this.#clients)
    this.#agent.destroy()
    return this.#answered
  }

  async #client(url: string, what: 'read' | 'write'): Promise<void> {
    while (!this.#isOver) {
      const outcome = await this.#call(url + PATH, what === 'read' ? 'GET' : 'POST')
      if (outcome === '200') this.#answered[what]++
      else this.lost.push(`${what}: ${outcome}`)
    }
  }

  #call(url: string, method: string): Promise<string> {
    return new Promise((resolve) => {
      const agent = method === 'GET' && this.#agent
      const outgoing = request(url, { method, agent }, (response) => {
        response.once('error', ({ message }) => resolve(`broken off: ${message}`))
        response.resume().once('end', () => resolve(`${response.statusCode}`))
      })
      outgoing.once('error', (error: NodeJS.ErrnoException) => resolve(`${error.code}`)).end()
    })
  }
}
