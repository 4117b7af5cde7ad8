import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { harnessConfig, newFolder, startServer } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { Program, startProcess } from '../support/process.ts'

/** A log agent behind a FIFO that reads only when it is told to. */
class Agent {
  readonly path = join(newFolder(), 'log')
  #text = ''
  #fd: number | undefined

  constructor() {
    execFileSync('mkfifo', [this.path])
    this.open()
    onTestFinished(() => this.leave())
  }

  open(): void {
    this.#fd = openSync(this.path, constants.O_RDONLY | constants.O_NONBLOCK)
  }

  leave(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }

  /** Reads what there is; returns all that was read so far. */
  read(): string {
    const buffer = Buffer.alloc(65_536)
    for (;;) {
      try {
        const count = readSync(this.#fd!, buffer)
        if (count === 0) return this.#text
        this.#text += buffer.toString('latin1', 0, count)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return this.#text
        throw error
      }
    }
  }
}

const REDIS = { kind: 'redis', url: inject('redisUrl'), prefix: `stalled-${process.pid}`, commandTimeout: '2s' }
/** In the log, so that few calls make much of it. */
const LONG = `/harness/ng/api/${'x'.repeat(12_000)}`
/** More than a process holds. */
const CALLS = 450

async function startLogging(server: object, rest: object = {}) {
  const agent = new Agent()
  const held: string[] = []
  const url = await startServer(({ url = '' }, response) => {
    if (url.endsWith('/held')) held.push(url)
    else response.end()
  })
  const cwd = newFolder()
  const config = harnessConfig(url, { limits: { read: [] } }, { server: { port: 0, drain: '10s', ...server }, ...rest })
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  const output = openSync(agent.path, constants.O_WRONLY)
  const program = new Program(['start'], { cwd, output })
  closeSync(output)
  const listening = (): string | undefined => /.*"msg":"listening".*/.exec(agent.read())?.[0]
  await expect.poll(listening).toBeDefined()
  const { url: gatewayUrl, admin } = JSON.parse(listening()!) as { url: string; admin: string }
  const dropped = async (): Promise<number> => {
    const samples = parseMetrics((await call(admin, '/metrics')).body)
    return Object.values(valuesOf(samples, 'sluice_log_dropped_total')).reduce((sum, value) => sum + value, 0)
  }
  return { agent, program, url: gatewayUrl, adminUrl: admin, dropped, held }
}

async function flood(url: string, calls: number): Promise<void> {
  const client = async (): Promise<void> => {
    for (let i = 0; i < calls / 10; i++) expect((await call(url, LONG)).status).toBe(200)
  }
  await Promise.all(Array.from({ length: 10 }, client))
}

describe('a log that nobody reads', () => {
  it('holds up neither calls nor SIGTERM; what does not fit is dropped and counted', async () => {
    const { program, url, dropped } = await startLogging({})
    await flood(url, CALLS)
    expect(await dropped()).toBeGreaterThan(0)
    program.kill('SIGTERM')
    expect(await program.ended).toEqual({ code: 0, signal: null })
  })

  it('holds up no worker either', async () => {
    const { program, url, dropped } = await startLogging({ workers: 2 }, { store: REDIS })
    await flood(url, 2 * CALLS)
    expect(await dropped()).toBeGreaterThan(0)
    program.kill('SIGTERM')
    expect(await program.ended).toEqual({ code: 0, signal: null })
  })

  it('does not keep a second signal from ending the process at once', async () => {
    const { program, url, adminUrl, held } = await startLogging({ drain: '1h' })
    await flood(url, 20)
    const broken = call(url, `${LONG}/held`).catch(() => 'broken off')
    await expect.poll(() => held).toHaveLength(1)
    program.kill('SIGTERM')
    await expect.poll(async () => (await call(adminUrl, '/readyz')).status).toBe(503)
    program.kill('SIGTERM')
    expect(await program.ended).toEqual({ code: 1, signal: null })
    await broken
  })

  it('says how many lines it lacks as soon as it is read again, and has whole lines only', async () => {
    const { agent, url, dropped } = await startLogging({})
    await flood(url, CALLS)
    const before = await dropped()
    const lines = () => agent.read().trim().split('\n')
    const lacking = /"dropped":(\d+)/
    await expect.poll(() => lacking.exec(agent.read())?.[1]).toBe(String(before))
    await call(url, '/harness/ng/api/after')
    await expect.poll(() => agent.read()).toContain('/ng/api/after')
    expect(lines().map((line) => (JSON.parse(line) as { msg: string }).msg)).toContain('call')
    expect(lines().filter((line) => line.includes('"msg":"call"')).length).toBe(CALLS + 1 - before)
  })

  it('goes on when another reader comes', async () => {
    const { agent, url } = await startLogging({})
    agent.leave()
    await flood(url, 20)
    agent.open()
    await expect.poll(() => agent.read().match(/"msg":"call"/g)?.length).toBe(20)
  })

  it('is no matter to calls and SIGTERM when its pipe is closed', async () => {
    const url = await startServer((_, response) => void response.end())
    const gateway = await startProcess(harnessConfig(url, { limits: { read: [] } }))
    gateway.child.stdout!.destroy()
    await flood(gateway.url, 20)
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    expect(gateway.stderr).toBe('')
  })
})
