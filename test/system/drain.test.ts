import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Agent, request, type ServerResponse } from 'node:http'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { makeCertificates } from '../support/certificates.ts'
import { harnessConfig, newFolder, startGateway, startServer, startUpstream, stores } from '../support/gateway.ts'
import { freePort } from '../support/find-redis.ts'
import { call, RawClient } from '../support/http.ts'
import { hasProgram } from '../support/packages.ts'
import { npmStart, Program, startProcess } from '../support/process.ts'
import { hasSmallDisks, SmallDisk } from '../support/small-disk.ts'

const hasNamespaces = spawnSync('unshare', ['--pid', '--fork', 'true']).status === 0

describe.each(['SIGTERM', 'SIGINT'] as const)('%s', (signal) => {
  it('lets running calls finish, refuses new connections, turns readiness off, and ends with 0', async () => {
    const responses: ServerResponse[] = []
    const url = await startServer((_, response) => void responses.push(response))
    const gateway = await startProcess(harnessConfig(url))
    const running = call(gateway.url, '/harness/ng/api/projects')
    await expect.poll(() => responses.length).toBe(1)
    expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200)
    gateway.kill(signal)
    await expect.poll(async () => (await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(503)
    await expect(RawClient.connect(gateway.url)).rejects.toThrow('ECONNREFUSED')
    responses[0]!.end('done')
    expect(await running).toMatchObject({ status: 200, body: 'done' })
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    expect(gateway.stdout).toContain('"outcome":"delivered"')
    expect(gateway.stdout.trim().split('\n').at(-1)).toContain('"msg":"stopped"')
  })
})

describe('a connection on which nothing was said yet', () => {
  it.each<[string, { tls?: boolean; [field: string]: unknown }]>([
    ['nor could be said before a handshake of TLS', { tls: true }],
    ['nor which HTTP it will be', { http2: true }],
    ['nor who the client is', { proxyProtocol: true, trustedProxies: ['127.0.0.1'] }],
    ['at all', {}],
  ])('keeps no gateway from stopping: %s', async (_, { tls, ...server }) => {
    const certificates = makeCertificates(['localhost'])
    onTestFinished(() => certificates.remove())
    const pair = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
    // Longer than a test may take.
    const slow = { port: 0, headTimeout: '10m', drain: '2s', ...server, ...(tls === true ? { tls: pair } : {}) }
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { server: slow }))
    const client = await RawClient.connect(gateway.url)
    await gateway.stop()
    expect(await client.closed()).toBe('')
  })
})

describe('SIGTERM', () => {
  it('loses no call that was accepted, under load over connections that are kept', async () => {
    const upstream = await startUpstream((_, response) => void setTimeout(() => response.end('ok'), 5))
    const gateway = await startProcess(harnessConfig(upstream.url, { limits: { read: [] } }))
    const { port } = new URL(gateway.url)
    const agent = new Agent({ keepAlive: true, maxSockets: 20 })
    const counts = { answered: 0, refused: 0 }
    const lost: string[] = []
    let isOver = false
    const client = async (): Promise<void> => {
      while (!isOver) {
        await new Promise<void>((resolve) => {
          const outgoing = request({ port, path: '/harness/ng/api/projects', agent }, (response) => {
            response.resume().once('end', () => {
              counts.answered++
              if (response.statusCode !== 200) lost.push(String(response.statusCode))
              resolve()
            })
          })
          outgoing.once('error', (error: NodeJS.ErrnoException) => {
            // Nobody took it: the client knows that, and goes elsewhere.
            if (error.code === 'ECONNREFUSED') isOver = true
            else lost.push(`${error.code} ${outgoing.reusedSocket}`)
            resolve()
          })
          outgoing.end()
        })
      }
      counts.refused++
    }
    const clients = Array.from({ length: 20 }, client)
    await expect.poll(() => counts.answered).toBeGreaterThan(300)
    gateway.kill('SIGTERM')
    await Promise.all(clients)
    agent.destroy()
    expect(lost).toEqual([])
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    expect(upstream.seen).toHaveLength(counts.answered)
  })

  it.each([1, 2])(
    'is told by /readyz before connections are refused, for as long as shutdownDelay (workers: %i)',
    async (workers) => {
      const upstream = await startUpstream()
      // Longer than a test may take; the second signal ends it.
      const server = { port: 0, workers, shutdownDelay: '10m' }
      const config = harnessConfig(upstream.url, {}, { server, store: stores.Redis() })
      const gateway = await startProcess(config)
      const readiness = async () => (await fetch(`${gateway.adminUrl}/readyz`)).status
      const reload = async (shutdownDelay: string) => {
        gateway.configure({ ...config, server: { ...server, shutdownDelay } })
        return (await fetch(`${gateway.adminUrl}/v1/reload`, { method: 'POST' })).status
      }
      expect(await readiness()).toBe(200)
      expect(await reload('9m')).toBe(200)
      gateway.kill('SIGTERM')
      await expect.poll(readiness).toBe(503)
      await gateway.line(/draining: new connections for another 540000 ms only/)
      // Nobody would put it in force.
      expect(await reload('1s')).toBe(422)
      await gateway.line(/"problems":\["the gateway stops"\]/)
      const client = await RawClient.connect(gateway.url)
      client.write('GET /harness/ng/api/projects HTTP/1.1\r\nHost: localhost\r\n\r\n')
      expect(await client.closed()).toMatch(/^HTTP\/1\.1 200[^]*\r\nconnection: close\r\n/i)
      gateway.kill('SIGTERM')
      expect(await gateway.ended).toEqual({ code: 1, signal: null })
    },
  )

  it('answers calls that wait for quota, if their turn comes in time', async () => {
    const upstream = await startUpstream()
    const gateway = await startProcess(
      harnessConfig(upstream.url, { limits: { read: [{ requests: 1, window: '5s' }] } }),
    )
    await call(gateway.url, '/harness/ng/api/projects')
    const waiting = call(gateway.url, '/harness/ng/api/projects')
    await expect
      .poll(async () =>
        (await (await fetch(`${gateway.adminUrl}/metrics`)).text()).includes(
          'sluice_queue_depth{upstream="harness",account="prod",class="read"} 1',
        ),
      )
      .toBe(true)
    gateway.kill('SIGTERM')
    expect((await waiting).status).toBe(200)
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
  })

  it.each(['the port for clients', 'the forward proxy'])(
    'lets calls wait for quota that come on a kept connection meanwhile, while no other port has any: %s',
    async (port) => {
      const upstream = await startUpstream((_, response) => response.end('ok'))
      const forwardProxy = { port: await freePort(), ca: join(newFolder(), 'ca') }
      const limits = { read: [{ requests: 1, window: '5s' }] }
      const gateway = await startProcess(harnessConfig(upstream.url, { limits }, { forwardProxy }))
      const [base, target] =
        port === 'the forward proxy'
          ? [`http://127.0.0.1:${forwardProxy.port}`, upstream.url]
          : [gateway.url, '/harness']
      const client = await RawClient.connect(base)
      const get = `GET ${target}/ng/api/projects HTTP/1.1\r\nHost: ${new URL(upstream.url).host}\r\n\r\n`
      client.write(get)
      await client.until(/ok/)
      gateway.kill('SIGTERM')
      const connecting = () =>
        RawClient.connect(gateway.url).then(
          () => 'accepted',
          () => 'refused',
        )
      await expect.poll(connecting).toBe('refused')
      client.write(get)
      expect((await client.closed()).match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200'])
      expect(await gateway.ended).toEqual({ code: 0, signal: null })
    },
  )

  it('refuses calls that wait for quota or for their next attempt when the time is nearly over, with Retry-After', async () => {
    let count = 0
    const upstream = await startUpstream((_, response) => response.writeHead(count++ === 0 ? 200 : 503).end())
    const retry = { retries: 1, baseDelay: '1h', maxDelay: '1h' }
    const limits = { read: [{ requests: 1, window: '1h' }] }
    const gateway = await startProcess({
      ...harnessConfig(upstream.url, { limits, retry, queue: { maxWait: '2h' }, timeouts: { total: '24h' } }),
      server: { port: 0, drain: '1s' },
    })
    await call(gateway.url, '/harness/ng/api/projects')
    const waiting = call(gateway.url, '/harness/ng/api/projects')
    const asleep = call(gateway.url, '/harness/ng/api/projects', { method: 'PUT' })
    await expect.poll(() => upstream.seen.length).toBe(2)
    await expect
      .poll(async () => (await fetch(`${gateway.adminUrl}/metrics`)).text())
      .toMatch(/sluice_queue_depth\{[^}]*class="read"\} 1/)
    gateway.kill('SIGTERM')
    for (const refused of [await waiting, await asleep]) {
      expect(refused).toMatchObject({ status: 503, headers: { 'x-sluice-error': 'draining', 'retry-after': '1' } })
    }
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    expect(upstream.seen).toHaveLength(2)
  })

  it('breaks off what does not end in the time that draining may take', async () => {
    const url = await startServer((_, response) => void response.writeHead(200).write('for ever'))
    const gateway = await startProcess({ ...harnessConfig(url), server: { port: 0, drain: '300ms' } })
    const client = await RawClient.connect(gateway.url)
    client.write('GET /harness/ng/api/projects HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await client.until(/for ever/)
    // In HTTP/1.0 an end would look like that of the whole body.
    const old = await RawClient.connect(gateway.url)
    const failed = once(old.socket, 'error')
    old.socket.once('end', () => old.socket.destroy(new Error('it looks whole')))
    old.write('GET /harness/ng/api/projects HTTP/1.0\r\n\r\n')
    await old.until(/for ever/)
    gateway.kill('SIGTERM')
    await client.closed()
    expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
  })

  it.each(['head', 'body'])(
    'ends what is asked for no client, and takes that for no failure: its %s',
    async (awaited) => {
      let count = 0
      const url = await startServer((_, response) => {
        response.writeHead(200, { 'cache-control': 'max-age=0, stale-while-revalidate=600', 'content-length': 1 })
        if (count++ === 0) response.end('a')
        else if (awaited === 'body') response.flushHeaders()
      })
      const routes = [{ method: 'GET', path: '/ng/api/projects', class: 'read', cache: true }]
      // Longer than a test may take.
      const timeouts = { headers: '10m', total: '20m', idle: '10m' }
      const gateway = await startProcess(harnessConfig(url, { routes, timeouts, breaker: { failures: 1 } }))
      for (const status of [/fwd=uri-miss/, /; hit/]) {
        const { body, headers } = await call(gateway.url, '/harness/ng/api/projects')
        expect([body, headers['cache-status']]).toEqual(['a', expect.stringMatching(status)])
      }
      await expect.poll(() => count).toBe(2)
      gateway.kill('SIGTERM')
      expect(await gateway.ended).toEqual({ code: 0, signal: null })
      expect(gateway.stdout).toContain('"msg":"stopped"')
      expect(gateway.stdout).not.toContain('breaker')
    },
  )

  it('ends with 1, and the whole log, where the quota can be neither written nor marked as not written', async () => {
    const upstream = await startUpstream()
    const dir = newFolder()
    const gateway = await startProcess({ ...harnessConfig(upstream.url), store: { dir } })
    await call(gateway.url, '/harness/ng/api/projects')
    // Away at once, whatever is written there meanwhile.
    renameSync(dir, join(newFolder(), 'away'))
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 1, signal: null })
    expect(gateway.stdout).toContain('"outcome":"delivered"')
    expect(gateway.stderr).toMatch(/ENOENT.*may be granted again/)
  })

  it.skipIf(!hasSmallDisks)('ends with 0 where the disk is full: the next gateway knows what is missing', async () => {
    const disk = new SmallDisk()
    const upstream = await startUpstream()
    const gateway = await startProcess({ ...harnessConfig(upstream.url), store: { dir: join(disk.path, 'store') } })
    await call(gateway.url, '/harness/ng/api/projects')
    disk.fill()
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    expect(gateway.stdout).toContain('ENOSPC')
    expect(readdirSync(join(disk.path, 'store')).toSorted()).toEqual(['quota.behind', 'usage'])
  })

  it('is heeded from the moment at which the gateway says that it listens', async () => {
    const ends = Array.from({ length: 4 }, async () => {
      const gateway = await startProcess(harnessConfig('http://127.0.0.1:9'))
      gateway.kill('SIGTERM')
      return (await gateway.ended).code
    })
    expect(await Promise.all(ends)).toEqual([0, 0, 0, 0])
  })

  it.each([1, 2])('breaks off no call that comes as soon as the port accepts it (workers: %i)', async (workers) => {
    const url = await startServer((_, response) => void setTimeout(() => response.end('ok'), 300))
    const port = await freePort()
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(harnessConfig(url, {}, { server: { port, workers } })))
    const program = new Program(['start'], { cwd })
    const connecting = () => RawClient.connect(`http://127.0.0.1:${port}`).catch(() => undefined)
    let client: RawClient | undefined
    while (client === undefined) client = await connecting()
    client.write('GET /harness/ng/api/projects HTTP/1.1\r\nHost: localhost\r\n\r\n')
    program.kill('SIGTERM')
    expect(await client.closed()).toMatch(/^HTTP\/1\.1 200[^]*ok/)
    expect(await program.ended).toEqual({ code: 0, signal: null })
  })

  it.skipIf(!hasNamespaces)('is heeded while the gateway loads, also by the first process of a container', async () => {
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(harnessConfig('http://127.0.0.1:9')))
    const command = ['unshare', '--pid', '--fork', '--kill-child', process.execPath, inject('program')]
    const program = new Program(['start'], { cwd, command })
    const { pid } = program.child
    const first = () => Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'))
    await expect.poll(first, { interval: 5 }).toBeGreaterThan(0)
    const container = first()
    // To such a process the system gives no signal for which it has no handler (pid_namespaces(7)).
    const again = setInterval(() => {
      try {
        process.kill(container, 'SIGTERM')
      } catch {
        // It has ended, which its parent has yet to say.
        clearInterval(again)
      }
    }, 20)
    expect((await program.ended).signal).toBeNull()
    // The loader may leave no turn between the first signal and the second, which ends the gateway at once.
    expect(program.stdout + program.stderr).not.toContain('"msg":"listening"')
  })

  it('a second time ends at once', async () => {
    const { promise: arrival, resolve } = Promise.withResolvers<void>()
    const url = await startServer(() => resolve())
    const gateway = await startProcess(harnessConfig(url))
    const client = await RawClient.connect(gateway.url)
    client.write('GET /harness/ng/api/projects HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await arrival
    gateway.kill('SIGTERM')
    await gateway.line(/draining/)
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 1, signal: null })
    expect(gateway.stdout).toContain('stopping at once')
    await client.closed()
  })
})

describe.skipIf(!hasProgram('script'))('a terminal that is closed', () => {
  it('lets running calls finish, though the launcher for an older Node passes on a SIGHUP that both got', async () => {
    const responses: ServerResponse[] = []
    const url = await startServer((_, response) => void responses.push(response))
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(harnessConfig(url, {}, { log: { format: 'json' } })))
    const start = `exec ${process.execPath} ${inject('program')} start`
    const terminal = new Program([], { cwd, command: ['script', '-qfc', start, '/dev/null'] })
    const gateway = JSON.parse(await terminal.line(/"msg":"listening"/)) as { url: string; admin: string; pid: number }
    const running = call(gateway.url, '/harness/ng/api/projects')
    await expect.poll(() => responses.length).toBe(1)
    terminal.kill('SIGKILL')
    await expect.poll(() => isRefused(gateway.url)).toBe(true)
    process.kill(gateway.pid, 'SIGHUP')
    // Its answer comes after the signal.
    expect((await fetch(`${gateway.admin}/readyz`)).status).toBe(503)
    responses[0]!.end('done')
    expect(await running).toMatchObject({ status: 200, body: 'done' })
    await expect.poll(() => existsSync(`/proc/${gateway.pid}`)).toBe(false)
  })
})

describe('npm start', () => {
  it('stops when npm is told to, and leaves nothing running', async () => {
    const responses: ServerResponse[] = []
    const url = await startServer((_, response) => void responses.push(response))
    const gateway = await npmStart(harnessConfig(url))
    const running = call(gateway.url, '/harness/ng/api/projects')
    await expect.poll(() => responses.length).toBe(1)
    gateway.kill('SIGTERM')
    await gateway.line(/draining/)
    responses[0]!.end('done')
    expect(await running).toMatchObject({ status: 200, body: 'done' })
    // The end of its output is also that of every process which holds it.
    expect(await gateway.ended).toMatchObject({ code: 0 })
  })

  it('drains at a Ctrl-C, which reaches the gateway twice: from the terminal, and from npm', async () => {
    const responses: ServerResponse[] = []
    const url = await startServer((_, response) => void responses.push(response))
    const gateway = await npmStart(harnessConfig(url))
    const running = call(gateway.url, '/harness/ng/api/projects')
    await expect.poll(() => responses.length).toBe(1)
    process.kill(gateway.pid, 'SIGINT')
    await gateway.line(/draining/)
    process.kill(gateway.pid, 'SIGINT')
    await expect.poll(() => isRefused(gateway.url)).toBe(true)
    responses[0]!.end('done')
    expect(await running).toMatchObject({ status: 200, body: 'done' })
    expect(await gateway.ended).toMatchObject({ code: 0 })
  })
})

function isRefused(url: string): Promise<boolean> {
  return RawClient.connect(url).then(
    () => false,
    () => true,
  )
}
