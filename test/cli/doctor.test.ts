import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { callVendors, type Finding } from '../../src/cli/harmless-call.ts'
import { checkConfig } from '../../src/config/load.ts'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { type CommandOptions, runCommand } from '../support/command-line.ts'
import { startDnsServer } from '../support/dns-server.ts'
import { deadPort, freePort } from '../support/find-redis.ts'
import { run } from '../support/process.ts'
import { describeTopology, startStandalone } from '../support/redis-topologies.ts'
import { harnessConfig, newFolder, startGateway, startServer, TOKEN } from '../support/gateway.ts'

async function examine(config: object, args: string[] = [], options: CommandOptions = {}) {
  const cwd = options.cwd ?? newFolder()
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  const { code, stdout, stderr } = await runCommand(['doctor', '--json', ...args], { ...options, cwd })
  expect(stderr).toBe('')
  expect(stdout).not.toContain('topsecret')
  return { code, findings: JSON.parse(stdout) as Finding[], of: (what: string) => pick(stdout, what) }
}

function pick(stdout: string, what: string): Finding[] {
  return (JSON.parse(stdout) as Finding[]).filter((one) => one.what === what)
}

describe('sluice doctor', () => {
  it('finds nothing to do where all is well, in a line each', async () => {
    const sandbox = await startSandbox()
    onTestFinished(() => sandbox.stop())
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(harnessConfig(sandbox.url)))
    const { code, stdout } = await runCommand(['doctor'], { cwd })
    expect(code, stdout).toBe(0)
    expect(stdout).toMatch(/^ok {4}configuration: sluice\.yaml is valid$/m)
    expect(stdout).toMatch(/^ok {4}credential harness\/prod: is taken by the vendor \(200\)$/m)
    expect(stdout).toMatch(/^ok {4}clock against harness\/prod: agrees/m)
    expect(stdout).not.toMatch(/^fail/m)
  })

  it('says what is wrong with the configuration, and what to do, and examines ports and folder if their part is right', async () => {
    const port = await freePort()
    const wrong = { upstream: {}, admin: { port: 'topsecret' }, store: { dir: 'kept' }, server: { port } }
    const { code, findings, of } = await examine(wrong)
    expect(code).toBe(1)
    expect(findings.map(({ level, what }) => `${level} ${what}`)).toEqual([
      ...Array.from({ length: 2 }, () => 'fail configuration'),
      'ok port',
      'ok folder kept',
    ])
    expect(findings.map(({ finding }) => finding)).toContain('sluice.yaml:3:9: admin.port: must be a whole number')
    expect(of('configuration')[0]).toMatchObject({ todo: expect.stringMatching(/^mend it/) })
    const right = await examine({ upstream: {}, server: { port, host: '0.0.0.0' }, admin: { port: 0 }, store: 7 })
    expect(right.of('port')).toMatchObject([{ level: 'ok', finding: `${port} of 0.0.0.0 is free` }])
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), 'upstream: {}\nadmin: { port: 0 }\nserver: { port: 0 }\n')
    const { stdout, stderr } = await runCommand(['doctor'], { cwd })
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^fail {2}configuration: sluice\.yaml:1:1: .* → mend it: .*$/m)
    expect(stdout).toMatch(/^ok {4}folder \.sluice: can be made$/m)
  })

  it('examines what the parts of a wrong configuration refer to, each part by itself', async () => {
    const [port, adminPort] = [await freePort(), await freePort()]
    const parts = {
      server: { port: '${env:PORT}' },
      admin: { port: '${env:ADMIN_PORT}', token: '${env:NOT_SET_HERE}' },
      store: { dir: '${file:state}' },
    }
    const cwd = newFolder()
    writeFileSync(join(cwd, 'state'), 'kept')
    const env = { PORT: String(port), ADMIN_PORT: String(adminPort) }
    const examined = await examine({ upstream: {}, ...parts }, [], { cwd, env })
    expect(examined.of('port')).toMatchObject([{ level: 'ok', finding: `${port} of 127.0.0.1 is free` }])
    expect(examined.of('admin port')).toMatchObject([{ level: 'ok', finding: `${adminPort} of 127.0.0.1 is free` }])
    expect(examined.of('folder kept')).toMatchObject([{ level: 'ok', finding: 'can be made' }])

    const unset = await examine({ upstream: {}, ...parts, store: { dir: '${env:STATE}' } }, [], {
      env: { PORT: env.PORT },
    })
    const rest = unset.findings.filter(({ what }) => what !== 'configuration')
    expect(rest.map(({ what }) => what)).toEqual(['port'])
    const same = { server: { port }, admin: { port }, forwardProxy: { port: 9090 } }
    for (const [config, whats] of [
      [same, ['port', 'admin port', 'port of the forward proxy']],
      // The port of each is the default of the other.
      [{ server: { port: 9090 }, admin: { port: 'x' } }, ['port']],
      [{ server: { port: 'x' }, admin: { port: 8080 } }, ['admin port']],
    ] as const) {
      const { findings } = await examine({ upstream: {}, store: 7, ...config })
      const others = findings.filter(({ what }) => what !== 'configuration')
      expect(others.map(({ what }) => what)).toEqual(whats)
    }
  })

  it('knows a port of a gateway that runs from one that something else has', async () => {
    const config = harnessConfig('http://127.0.0.1:9')
    const gateway = await startGateway(config)
    const [port, adminPort] = [gateway.url, gateway.adminUrl].map((url) => Number(new URL(url).port))
    const running = await examine({ ...config, server: { port }, admin: { port: adminPort } }, ['--no-calls'])
    expect(running.of('port')).toMatchObject([{ level: 'ok', finding: `a gateway runs on ${port} of 127.0.0.1` }])

    const other = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => other.once('listening', resolve))
    onTestFinished(() => void other.close())
    const taken = { port: (other.address() as AddressInfo).port }
    const { code, of } = await examine({ ...config, server: taken }, ['--no-calls'])
    expect(code).toBe(1)
    expect(of('port')).toMatchObject([{ level: 'fail', finding: expect.stringContaining('EADDRINUSE') }])
    expect(of('port of the forward proxy')).toEqual([])
    const proxied = await examine({ ...config, forwardProxy: taken }, ['--no-calls'])
    expect(proxied.code).toBe(1)
    expect(proxied.of('port of the forward proxy')).toMatchObject([
      { level: 'fail', finding: `${taken.port} of 127.0.0.1 can not be had (EADDRINUSE)` },
    ])
  })

  it('sends no credential past the proxy of an upstream, and says that it tried none', async () => {
    let calls = 0
    const url = await startServer((_, response) => (calls++, response.end('{}')))
    const { of } = await examine(harnessConfig(url, { proxy: `http://egress:topsecret@127.0.0.1:${await deadPort()}` }))
    const finding = 'was not tried: the upstream is reached through a proxy'
    expect(of('credential harness/prod')).toMatchObject([{ level: 'warn', finding }])
    expect(calls).toBe(0)
  })

  it('sends no credential to what the network access rules close, and says that it tried none', async () => {
    let calls = 0
    const url = await startServer((_, response) => (calls++, response.end('{}')))
    const named = url.replace('127.0.0.1', 'localhost')
    const blocked = { networkAccess: { blocked: ['127.0.0.1', '[::1]'] } }
    for (const config of [
      harnessConfig(url, {}, blocked),
      harnessConfig(url, blocked),
      harnessConfig(url, { networkAccess: { allowed: [`${url}/other`] } }),
      harnessConfig(named, blocked),
    ]) {
      const { of } = await examine(config)
      const finding = `was not tried: the network access rules do not allow localhost:${new URL(url).port}`
      const expected = JSON.stringify(config).includes(named) ? finding : finding.replace('localhost', '127.0.0.1')
      expect(of('credential harness/prod')).toMatchObject([
        { level: 'warn', finding: expected, todo: 'change networkAccess, if the gateway is to reach it' },
      ])
    }
    expect(calls).toBe(0)
    await examine(harnessConfig(named, { networkAccess: { allowed: ['localhost'] } }))
    expect(calls).toBe(1)
  })

  it('calls only those addresses of a name that the gateway may reach, and names the setting that forbids all', async () => {
    let calls = 0
    const url = await startServer((_, response) => (calls++, response.end('{}')))
    const found = async (addresses: string[], upstream: object, rest: object = {}): Promise<Finding | undefined> => {
      const { lookup } = await startDnsServer(() => addresses)
      const named = url.replace('127.0.0.1', 'vendor.example')
      return (await callVendors(checkConfig(harnessConfig(named, upstream, rest), 'test'), lookup))[0]
    }
    const open = { privateAddresses: 'allow' }
    const blocked = { networkAccess: { blocked: ['127.0.0.1'] } }
    // Nobody listens on 127.0.0.2.
    expect(await found(['127.0.0.1', '127.0.0.2'], open, blocked)).toMatchObject({ level: 'fail' })
    const host = `vendor.example:${new URL(url).port}`
    const finding = `was not tried: the network access rules do not allow ${host}`
    const todo = 'change networkAccess, if the gateway is to reach it'
    expect(await found(['127.0.0.1'], open, blocked)).toMatchObject({ level: 'warn', finding, todo })
    expect(await found(['127.0.0.1'], { privateAddresses: 'deny' })).toMatchObject({
      level: 'warn',
      finding,
      todo: 'change networkAccess, or set privateAddresses: allow at this upstream, if the gateway is to reach it',
    })
    expect(calls).toBe(0)
    expect(await found(['127.0.0.1', '127.0.0.2'], open)).toMatchObject({ level: 'ok' })
    expect(calls).toBe(1)
  })

  it('tells a credential that the vendor refuses, and one that nobody answers', async () => {
    const url = await startServer((_, response) => response.writeHead(401).end())
    const refused = await examine(harnessConfig(url))
    expect(refused.code).toBe(1)
    expect(refused.of('credential harness/prod')).toMatchObject([
      { level: 'fail', finding: 'is refused by the vendor (401)', todo: expect.stringContaining('renew') },
    ])
    const away = await examine(harnessConfig(`http://127.0.0.1:${await deadPort()}`))
    expect(away.code).toBe(1)
    expect(away.of('credential harness/prod')).toMatchObject([
      { level: 'fail', finding: expect.stringContaining('no answer') },
    ])
  })

  it('compares the clock and the limits with what the vendor says', async () => {
    const url = await startServer((_, response) => {
      const headers = { 'x-ratelimit-limit': '50', 'x-ratelimit-remaining': '49', 'x-ratelimit-reset': '60' }
      response.writeHead(200, { ...headers, date: new Date(Date.now() - 3_600_000).toUTCString() }).end('{}')
    })
    const { code, of } = await examine(harnessConfig(url))
    expect(code).toBe(0)
    expect(of('clock against harness/prod')).toMatchObject([
      { level: 'warn', finding: expect.stringMatching(/^is 36\d\d s off/) },
    ])
    expect(of('limits of harness/prod')).toMatchObject([{ level: 'warn', todo: expect.stringContaining('at most 50') }])
    const { of: within } = await examine(harnessConfig(url, { limits: { read: [{ requests: 40, window: '60s' }] } }))
    expect(within('limits of harness/prod')).toMatchObject([{ level: 'ok' }])
  })

  it('asks Redis whether it answers, keeps and evicts, and what time it is', async () => {
    const store = { kind: 'redis', url: inject('redisUrl'), prefix: 'doctor', commandTimeout: '2s' }
    const { of } = await examine(harnessConfig('http://127.0.0.1:9', {}, { store }), ['--no-calls'])
    expect(of('redis')[0]).toMatchObject({ finding: expect.stringContaining('Redis answers') })
    expect(of('redis memory')).toMatchObject([{ level: 'ok', finding: 'it evicts no keys' }])
    expect(of('redis clock')).toMatchObject([{ level: 'ok' }])
    const away = { ...store, url: 'redis://:topsecret@127.0.0.1:1' }
    const gone = await examine(harnessConfig('http://127.0.0.1:9', {}, { store: away }), ['--no-calls'])
    expect(gone.code).toBe(1)
    expect(gone.of('redis')).toMatchObject([{ level: 'fail', finding: expect.stringContaining("can't be asked") }])
  })

  it('asks the Redis of all regions whether it can be home', async () => {
    const redis = inject('redisUrl')
    const regionsWith = (home: object) => ({ name: 'eu', weights: { eu: 1, us: 1 }, home })
    const examineHome = (home: object) =>
      examine(
        harnessConfig('http://127.0.0.1:9', {}, { store: { kind: 'redis', url: redis, regions: regionsWith(home) } }),
        ['--no-calls'],
      )
    const { of } = await examineHome({ url: redis })
    expect(of('home')).toMatchObject([{ level: 'ok', finding: 'Redis answers' }])
    expect(of('home memory')).toMatchObject([{ level: 'ok', finding: 'it evicts no keys' }])
    const away = await examineHome({ url: 'redis://:topsecret@127.0.0.1:1' })
    expect(away.code).toBe(1)
    expect(away.of('home')).toMatchObject([
      { level: 'fail', finding: expect.stringMatching(/^home does not answer \(/) },
    ])
    const refused = await examineHome({ url: redis, username: 'nobody', password: 'topsecret' })
    expect(refused.code).toBe(1)
    const why = /^home refuses \(WRONGPASS .*\): it does not accept the username and password of store.regions.home$/
    expect(refused.of('home')).toMatchObject([{ level: 'fail', finding: expect.stringMatching(why) }])
  })

  it('finds that a start can make a folder, however many above it are missing', async () => {
    const dir = join(newFolder(), 'not', 'there', 'yet')
    const { code, of } = await examine(harnessConfig('http://127.0.0.1:9', {}, { store: { dir } }), ['--no-calls'])
    expect(code).toBe(0)
    expect(of(`folder ${dir}`)).toMatchObject([{ level: 'ok', finding: 'can be made' }])
  })

  it('finds a file where the folder is to be, or above it', async () => {
    const file = join(newFolder(), 'file')
    // It passes each right that a folder needs.
    writeFileSync(file, '', { mode: 0o700 })
    for (const [dir, finding] of [
      [file, 'is a file'],
      [join(file, 'dir'), `can not be made: ${file} is a file`],
    ] as const) {
      const { code, of } = await examine(harnessConfig('http://127.0.0.1:9', {}, { store: { dir } }), ['--no-calls'])
      expect([code, of(`folder ${dir}`)]).toMatchObject([1, [{ level: 'fail', finding }]])
    }
  })

  it('tells a folder that is open to everybody', async () => {
    const dir = join(newFolder(), 'the quota')
    mkdirSync(dir)
    chmodSync(dir, 0o777)
    const { code, of } = await examine(harnessConfig('http://127.0.0.1:9', {}, { store: { dir } }), ['--no-calls'])
    expect(code).toBe(0)
    expect(of(`folder ${dir}`)).toMatchObject([{ level: 'warn', todo: `chmod o-rwx '${dir}'` }])
  })

  it('never shows a secret, whatever the vendor answers', async () => {
    const url = await startServer((request, response) => {
      const key = String(request.headers['x-api-key'])
      expect(key).toBe(TOKEN)
      response.writeHead(500, { 'x-request-id': key }).end(key)
    })
    const { of } = await examine(harnessConfig(url))
    expect(of('credential harness/prod')).toMatchObject([{ level: 'warn', finding: 'the vendor answered 500' }])
  })
})

describe('sluice doctor as a process of its own', () => {
  it('ends by itself, with 1 for what fails', async () => {
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(harnessConfig(`http://127.0.0.1:${await deadPort()}`)))
    const { code, stdout, stderr } = await run(['doctor'], { cwd })
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' })
    expect(stdout).toMatch(/^fail {2}credential harness\/prod: no answer from 127\.0\.0\.1:\d+: ECONNREFUSED → check/m)
  })
})

describeTopology('a Redis that does not tell its time', () => {
  it('is a warning beside all other findings', async () => {
    const server = await startStandalone()
    onTestFinished(() => server.stop())
    const redis = new Redis(server.port)
    await redis.acl('SETUSER', 'doctor', 'on', '>topsecret', '~*', '&*', '+@all', '-time')
    redis.disconnect()
    const store = { kind: 'redis', url: `redis://doctor:topsecret@127.0.0.1:${server.port}`, commandTimeout: '2s' }
    const { of } = await examine(harnessConfig('http://127.0.0.1:9', {}, { store }), ['--no-calls'])
    const todo = expect.stringContaining('TIME')
    expect(of('redis clock')).toMatchObject([{ level: 'warn', finding: 'it does not say what time it is', todo }])
    expect(of('configuration')).toMatchObject([{ level: 'ok' }])
  })
})

describeTopology('a Redis that evicts keys and keeps nothing', () => {
  it('is a failure with what to set', async () => {
    const server = await startStandalone(['--maxmemory', '50mb', '--maxmemory-policy', 'allkeys-lru'])
    onTestFinished(() => server.stop())
    const store = { kind: 'redis', url: `redis://127.0.0.1:${server.port}`, commandTimeout: '2s' }
    const { code, of } = await examine(harnessConfig('http://127.0.0.1:9', {}, { store }), ['--no-calls'])
    expect(code).toBe(1)
    expect(of('redis memory')).toMatchObject([{ level: 'fail', todo: expect.stringContaining('noeviction') }])
    expect(of('redis')).toContainEqual(expect.objectContaining({ level: 'warn', todo: 'set its appendonly to yes' }))
  })
})
