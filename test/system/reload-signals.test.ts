import { randomUUID } from 'node:crypto'
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, inject, it } from 'vitest'
import { stringify } from 'yaml'
import { ACCOUNT, harnessConfig, newFolder, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { freeze, type Program, startProcessIn } from '../support/process.ts'

const READ = '/harness/ng/api/projects'
const RELOADED = /the configuration was reloaded/
const REJECTED = /the configuration was not reloaded/

/** A configuration in which only the key differs. */
function configWith(url: string, value: string, rest: object = {}): string {
  const accounts = { prod: { id: ACCOUNT, credential: { value } } }
  return stringify({ ...harnessConfig(url, { accounts }), store: { dir: '.sluice' }, ...rest })
}

async function keySent(gateway: { url: string }, seen: { headers: NodeJS.Dict<string | string[]> }[]) {
  expect((await call(gateway.url, READ)).status).toBe(200)
  return seen.at(-1)!.headers['x-api-key']
}

const countOf = (program: Program, pattern: RegExp): number =>
  program.stdout.split('\n').filter((line) => pattern.test(line)).length

const lineOf = (program: Program, pattern: RegExp): unknown =>
  JSON.parse(program.stdout.split('\n').findLast((line) => pattern.test(line))!)

describe('the configuration file', () => {
  it('is put in force when it has changed, written in place or replaced', async () => {
    const upstream = await startUpstream()
    const cwd = newFolder()
    const file = join(cwd, 'sluice.yaml')
    writeFileSync(file, configWith(upstream.url, 'first'))
    const gateway = await startProcessIn(cwd)
    expect(await keySent(gateway, upstream.seen)).toBe('first')
    writeFileSync(file, configWith(upstream.url, 'second'))
    await expect.poll(() => countOf(gateway, RELOADED)).toBe(1)
    expect(await keySent(gateway, upstream.seen)).toBe('second')
    writeFileSync(`${file}.new`, configWith(upstream.url, 'third'))
    renameSync(`${file}.new`, file)
    await expect.poll(() => countOf(gateway, RELOADED)).toBe(2)
    expect(await keySent(gateway, upstream.seen)).toBe('third')
    expect(lineOf(gateway, RELOADED)).toMatchObject({ changed: ['upstreams.harness.accounts'] })
  })

  it('changes nothing when it is wrong: the log has every problem, without secrets, and the one before stays', async () => {
    const upstream = await startUpstream()
    const cwd = newFolder()
    const file = join(cwd, 'sluice.yaml')
    writeFileSync(file, configWith(upstream.url, 'first'))
    const gateway = await startProcessIn(cwd)
    writeFileSync(file, configWith(upstream.url, 'top-secret', { sever: {}, clients: { a: { keys: ['hash'] } } }))
    await expect.poll(() => countOf(gateway, REJECTED)).toBe(1)
    expect(lineOf(gateway, REJECTED)).toMatchObject({
      level: 50,
      problems: [
        expect.stringMatching(/^sluice\.yaml:\d+:\d+: sever: unknown key "sever"; did you mean "server"\?$/),
        expect.stringMatching(/^sluice\.yaml:\d+:\d+: clients\.a\.keys\[0\]: must be "sha256:"/),
      ],
    })
    expect(await keySent(gateway, upstream.seen)).toBe('first')
    const metrics = parseMetrics(await (await fetch(`${gateway.adminUrl}/metrics`)).text())
    expect(valuesOf(metrics, 'sluice_config_reload_total', 'result')).toMatchObject({ applied: 0, rejected: 1 })
    expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200)
    writeFileSync(file, configWith(upstream.url, 'second'))
    await expect.poll(() => countOf(gateway, RELOADED)).toBe(1)
    expect(await keySent(gateway, upstream.seen)).toBe('second')
    expect(gateway.stdout + gateway.stderr).not.toContain('top-secret')
  })

  it('that is gone leaves all in force, whatever the environment describes, and is followed when it is there again', async () => {
    const upstream = await startUpstream()
    const cwd = newFolder()
    const file = join(cwd, 'sluice.yaml')
    writeFileSync(file, configWith(upstream.url, 'first'))
    const env = { HARNESS_ACCOUNT_ID: ACCOUNT, HARNESS_API_KEY: 'of-environment' }
    const gateway = await startProcessIn(cwd, [], env)
    writeFileSync(file, configWith(upstream.url, 'second'))
    await expect.poll(() => countOf(gateway, RELOADED)).toBe(1)
    rmSync(file)
    await expect.poll(() => countOf(gateway, REJECTED)).toBe(1)
    const gone = expect.stringMatching(/^sluice\.yaml: can't be read: ENOENT/)
    expect(lineOf(gateway, REJECTED)).toMatchObject({ problems: [gone] })
    gateway.kill('SIGHUP')
    await expect.poll(() => countOf(gateway, REJECTED)).toBe(2)
    expect(await keySent(gateway, upstream.seen)).toBe('second')
    writeFileSync(file, configWith(upstream.url, 'third'))
    await expect.poll(() => countOf(gateway, RELOADED)).toBe(2)
    expect(await keySent(gateway, upstream.seen)).toBe('third')
  })

  it('that appears beside a gateway without one is kept to, once it was read', async () => {
    const upstream = await startUpstream()
    const cwd = newFolder()
    const file = join(cwd, 'sluice.yaml')
    const ports = ['--port', '0', '--admin-port', '0']
    const gateway = await startProcessIn(cwd, ports, { HARNESS_ACCOUNT_ID: ACCOUNT, HARNESS_API_KEY: 'of-environment' })
    writeFileSync(file, configWith(upstream.url, 'first'))
    gateway.kill('SIGHUP')
    await expect.poll(() => countOf(gateway, RELOADED)).toBe(1)
    rmSync(file)
    await expect.poll(() => countOf(gateway, REJECTED)).toBe(1)
    expect(await keySent(gateway, upstream.seen)).toBe('first')
  })

  it('that is large, which another thread reads, is put in force, followed and refused like a small one', async () => {
    const upstream = await startUpstream()
    const cwd = newFolder()
    const file = join(cwd, 'sluice.yaml')
    const secret = join(cwd, 'secret')
    writeFileSync(secret, 'first')
    const routes = Array.from({ length: 300 }, (_, i) => ({ path: `/things/${i}/{id}`, class: 'read' }))
    const large = (url: string, maxHeaderBytes = 16_384): string => {
      const accounts = { prod: { id: ACCOUNT, credential: { value: '${file:secret}' } } }
      const config = harnessConfig(url, { accounts, routes })
      return stringify({ ...config, server: { port: 0, maxHeaderBytes }, store: { dir: '.sluice' } })
    }
    writeFileSync(file, large('http://127.0.0.1:1'))
    const gateway = await startProcessIn(cwd)
    writeFileSync(file, large(upstream.url))
    await expect.poll(() => countOf(gateway, RELOADED)).toBe(1)
    expect(lineOf(gateway, RELOADED)).toMatchObject({ changed: ['upstreams.harness.url'] })
    expect(await keySent(gateway, upstream.seen)).toBe('first')
    writeFileSync(secret, 'second')
    await expect.poll(() => keySent(gateway, upstream.seen)).toBe('second')
    writeFileSync(file, large(upstream.url, -1))
    await expect.poll(() => countOf(gateway, REJECTED)).toBe(1)
    const problem = expect.stringMatching(/^sluice\.yaml:\d+:\d+: server\.maxHeaderBytes: must be at least/)
    expect(lineOf(gateway, REJECTED)).toMatchObject({ problems: [problem] })
    writeFileSync(file, large(upstream.url))
    await expect.poll(() => countOf(gateway, /the configuration is what it was/)).toBeGreaterThan(0)
  })

  it('and files that it references are followed through the links by which Kubernetes swaps a mounted volume', async () => {
    const upstream = await startUpstream()
    const mount = newFolder()
    const put = (version: string, key: string): void => {
      mkdirSync(join(mount, version))
      writeFileSync(
        join(mount, version, 'sluice.yaml'),
        configWith(upstream.url, '${file:key}', { store: { dir: newFolder() } }),
      )
      writeFileSync(join(mount, version, 'key'), `${key}\n`)
      symlinkSync(version, join(mount, '..data_tmp'))
      renameSync(join(mount, '..data_tmp'), join(mount, '..data'))
    }
    put('..v1', 'first')
    for (const name of ['sluice.yaml', 'key']) symlinkSync(`..data/${name}`, join(mount, name))
    const gateway = await startProcessIn(newFolder(), ['--config', join(mount, 'sluice.yaml')])
    expect(await keySent(gateway, upstream.seen)).toBe('first')
    put('..v2', 'second')
    await expect.poll(() => keySent(gateway, upstream.seen)).toBe('second')
  })

  it('that is changed while a file of a secret in it is blank leaves the last secret in force', async () => {
    const upstream = await startUpstream()
    const cwd = newFolder()
    writeFileSync(join(cwd, 'key'), 'first')
    writeFileSync(join(cwd, 'sluice.yaml'), configWith(upstream.url, 'Bearer ${file:key}'))
    const gateway = await startProcessIn(cwd)
    writeFileSync(join(cwd, 'key'), '\n')
    expect(await gateway.line(/the configuration was not reloaded/)).toContain('the file key is empty')
    expect(await keySent(gateway, upstream.seen)).toBe('Bearer first')
    writeFileSync(join(cwd, 'key'), 'second')
    await expect.poll(() => keySent(gateway, upstream.seen)).toBe('Bearer second')
  })

  it('is put in force by SIGHUP where it is not watched, and SIGHUP does not stop the gateway', async () => {
    const upstream = await startUpstream()
    const cwd = newFolder()
    const server = { port: 0, watch: false }
    writeFileSync(join(cwd, 'key'), 'first')
    writeFileSync(join(cwd, 'sluice.yaml'), configWith(upstream.url, '${file:key}', { server }))
    const gateway = await startProcessIn(cwd)
    gateway.kill('SIGHUP')
    await gateway.line(/the configuration is what it was/)
    writeFileSync(join(cwd, 'key'), 'second')
    gateway.kill('SIGHUP')
    await gateway.line(RELOADED)
    expect(await keySent(gateway, upstream.seen)).toBe('second')
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
  })
})

/** A gateway of two workers with a key in a file, and the worker that served a call. */
async function startWorkers() {
  const upstream = await startUpstream()
  const cwd = newFolder()
  writeFileSync(join(cwd, 'key'), 'second')
  const store = { kind: 'redis', url: inject('redisUrl'), prefix: `reload-${randomUUID()}`, commandTimeout: '2s' }
  // The key is read again only with the configuration.
  const rest = { server: { port: 0, workers: 2, watch: false }, store }
  const configure = (key: string): void => writeFileSync(join(cwd, 'sluice.yaml'), configWith(upstream.url, key, rest))
  configure('first')
  const gateway = await startProcessIn(cwd)
  const hang = async (): Promise<number> => {
    await call(gateway.url, READ)
    const pid = Number(/"pid":(\d+)/.exec(await gateway.line(/"msg":"call"/))![1])
    freeze(pid)
    return pid
  }
  /** Which keys go upstream, when both workers serve. */
  const keysSent = async (): Promise<unknown[]> => {
    const workers = new Set<string>()
    const { length } = upstream.seen
    const read = async (): Promise<number> => {
      const from = gateway.stdout.length
      await Promise.all(Array.from({ length: 20 }, () => call(gateway.url, READ)))
      for (const [, pid] of gateway.stdout.slice(from).matchAll(/"pid":(\d+),"msg":"call"/g)) workers.add(pid!)
      return workers.size
    }
    await expect.poll(read).toBe(2)
    return [...new Set(upstream.seen.slice(length).map(({ headers }) => headers['x-api-key']))]
  }
  return { upstream, gateway, cwd, configure, hang, keysSent }
}

describe('a gateway of several workers', () => {
  it('reloads all of them, and replaces one that dies by one that runs what is in force, not what is in the file', async () => {
    const upstream = await startUpstream()
    const cwd = newFolder()
    const file = join(cwd, 'sluice.yaml')
    const store = { kind: 'redis', url: inject('redisUrl'), prefix: `reload-${process.pid}`, commandTimeout: '2s' }
    const rest = { server: { port: 0, workers: 2 }, store }
    writeFileSync(file, configWith(upstream.url, 'first', rest))
    const gateway = await startProcessIn(cwd)
    const pids = () => new Set([...gateway.stdout.matchAll(/"pid":(\d+),"msg":"call"/g)].map(([, pid]) => Number(pid)))
    const keysSent = async (): Promise<unknown[]> => {
      const { length } = upstream.seen
      const before = pids().size
      await Promise.all(Array.from({ length: 20 }, () => call(gateway.url, READ)))
      await expect.poll(() => pids().size).toBeGreaterThanOrEqual(before)
      return [...new Set(upstream.seen.slice(length).map(({ headers }) => headers['x-api-key']))]
    }
    // The system gives a connection to either worker: on a busy machine, many to one.
    await expect.poll(async () => [await keysSent(), pids().size]).toEqual([['first'], 2])
    writeFileSync(file, configWith(upstream.url, 'second', rest))
    await expect.poll(() => countOf(gateway, RELOADED)).toBe(1)
    expect(await keysSent()).toEqual(['second'])
    writeFileSync(file, 'this is no configuration')
    await expect.poll(() => countOf(gateway, REJECTED)).toBe(1)
    const [victim] = pids()
    process.kill(victim!, 'SIGKILL')
    await gateway.line(/will be replaced/)
    await expect.poll(async () => (await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200)
    expect(await keysSent()).toEqual(['second'])
    const metrics = parseMetrics(await (await fetch(`${gateway.adminUrl}/metrics`)).text())
    expect(valuesOf(metrics, 'sluice_config_reload_total', 'result')).toEqual({ applied: 1, unchanged: 0, rejected: 1 })
  })

  it('puts a configuration in force although one of them hangs, and so does the one in its place', async () => {
    const { gateway, configure, hang, keysSent } = await startWorkers()
    const pid = await hang()
    configure('second')
    gateway.kill('SIGHUP')
    await gateway.line(RELOADED)
    await gateway.line(new RegExp(`"worker":${pid},.*"msg":"a worker died and will be replaced"`))
    expect(await keysSent()).toEqual(['second'])
    const metrics = parseMetrics(await (await fetch(`${gateway.adminUrl}/metrics`)).text())
    expect(valuesOf(metrics, 'sluice_config_reload_total', 'result')).toEqual({ applied: 1, unchanged: 0, rejected: 0 })
  })

  it('goes back to the one before everywhere if one of them refuses what the others took', async () => {
    const { upstream, gateway, cwd, configure, hang, keysSent } = await startWorkers()
    const pid = await hang()
    configure('${file:key}')
    gateway.kill('SIGHUP')
    // The other one took it.
    await expect.poll(() => keySent(gateway, upstream.seen)).toBe('second')
    writeFileSync(join(cwd, 'key'), '')
    process.kill(pid, 'SIGCONT')
    expect(await gateway.line(REJECTED)).toContain('the file key is empty')
    expect(await keysSent()).toEqual(['first'])
  })
})
