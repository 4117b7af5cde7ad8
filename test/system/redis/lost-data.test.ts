import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { ADMIN_TOKEN, ask } from '../../support/admin.ts'
import { startRedisServer } from '../../support/find-redis.ts'
import { harnessConfig, newFolder, startUpstream } from '../../support/gateway.ts'
import { call } from '../../support/http.ts'
import { hasProgram } from '../../support/packages.ts'
import { runCommand } from '../../support/command-line.ts'
import { Program } from '../../support/process.ts'

const PATH = '/harness/ng/api/projects'
const KEY = randomBytes(32).toString('base64')

/** Redis of one's own, and a folder with a configuration that uses it, with the environment that it wants. */
async function setUp(options: readonly string[] = []) {
  const upstream = await startUpstream()
  const redis = await startRedisServer(options)
  onTestFinished(() => redis.stop())
  const accounts = { prod: { id: 'a', credential: { value: 'Key ${secret:harness/prod}' } } }
  const config = harnessConfig(
    upstream.url,
    { accounts },
    {
      server: { port: 0 },
      admin: { port: 0, token: ADMIN_TOKEN },
      store: { kind: 'redis', url: redis.url, commandTimeout: '2s' },
      secrets: { key: '${env:MASTER_KEY}' },
    },
  )
  const cwd = newFolder()
  mkdirSync(cwd, { recursive: true })
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  const place = { cwd, env: { MASTER_KEY: KEY } }
  const start = async () => {
    const program = new Program(['start'], place)
    const { url, admin } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string; admin: string }
    return Object.assign(program, { url, adminUrl: admin })
  }
  return { upstream, redis, place, start }
}

function clientOf(url: string): Redis {
  const client = new Redis(url)
  onTestFinished(() => client.disconnect())
  return client
}

const statusOf = async (gateway: { url: string }, key: string) =>
  (await call(gateway.url, PATH, { headers: { 'x-sluice-key': key } })).status

describe.skipIf(!hasProgram('redis-server'))('a Redis that comes back empty', () => {
  it('gets clients and secrets back from gateways that run, and the log, /readyz, the audit trail and check say so', async () => {
    const { redis, place, start } = await setUp()
    await runCommand(['credentials', 'set', 'harness/prod'], { ...place, input: 'one' })
    const gateways = [await start(), await start()]
    const made = await ask(gateways[0]!, 'POST', '/clients', { name: 'bot' })
    const { key } = made.json() as { key: string }
    for (const gateway of gateways) await expect.poll(() => statusOf(gateway, key)).toBe(200)
    const healthy = await fetch(`${gateways[0]!.adminUrl}/readyz`)
    expect(await healthy.json()).toEqual({ status: 'ready' })

    const before = gateways.map(({ stdout }) => stdout.length)
    await redis.stop()
    const empty = await startRedisServer([], redis.port)
    onTestFinished(() => empty.stop())
    const client = clientOf(empty.url)
    await expect.poll(() => client.hkeys('sluice:clients')).toEqual(['bot'])
    await expect.poll(() => client.hkeys('sluice:secrets')).toEqual(['harness/prod'])
    for (const [i, gateway] of gateways.entries()) {
      await expect.poll(() => statusOf(gateway, key)).toBe(200)
      const readyz = async () => (await (await fetch(`${gateway.adminUrl}/readyz`)).json()) as { degraded?: string }
      const told = /Redis has lost .*the older entries of the audit trail, which the log still has \(noticed at .*Z\)/
      await expect.poll(async () => (await readyz()).degraded).toMatch(told)
      // Before, one gateway may not have heard yet of the client that another made.
      expect(gateway.stdout.slice(before[i])).not.toContain('"outcome":"unauthenticated"')
    }
    const log = () => gateways.map(({ stdout }) => stdout).join('')
    await expect.poll(log).toContain('Redis has lost 1 of its clients, put back from what this gateway knew')
    await expect.poll(log).toContain('Redis has lost 1 of its secrets, put back from what this gateway knew')

    // One that starts now finds everything as it was.
    const late = await start()
    expect(await statusOf(late, key)).toBe(200)
    const trail = (await ask(late, 'GET', '/audit')).json() as { data: { action: string }[] }
    expect(trail.data.map(({ action }) => action)).toEqual(['audit.lost'])
    const { code, stdout, stderr } = await runCommand(['check', '--store'], place)
    expect({ code, lines: stdout.split('\n').slice(1) }).toEqual({
      code: 0,
      lines: [
        'store: Redis answers; after a restart it has nothing (neither an append-only file nor snapshots)',
        'store: 1 client of the admin API, 1 secret',
        '',
      ],
    })
    expect(stderr).toMatch(
      /warning: Redis has neither .* 1 client of the admin API, 1 secret and the audit trail are gone/,
    )
    expect(stderr).toMatch(/warning: at [\dT:.-]+Z Redis had lost what it had: the audit trail begins then\n/)
  })
})

describe.skipIf(!hasProgram('redis-server'))('whether Redis keeps what it has', () => {
  it.each([
    ['an append-only file', ['--appendonly', 'yes'], 'is there after a restart (append-only file)'],
    ['snapshots', ['--save', '60 1'], 'has what its last snapshot has'],
    ['neither', [], 'it has nothing (neither'],
    ['neither, and says nothing', ['--rename-command', 'CONFIG', ''], 'it is unknown what it has after a restart'],
  ])('is told by check: %s', async (_, options, expected) => {
    const { place } = await setUp(options)
    const { code, stdout, stderr } = await runCommand(['check', '--store', '--no-secrets'], place)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toContain(expected)
  })

  it('is not told by check where Redis does not know the command with the password, nor is the password', async () => {
    const { redis, place } = await setUp(['--rename-command', 'AUTH', '', '--rename-command', 'HELLO', ''])
    const text = readFileSync(join(place.cwd, 'sluice.yaml'), 'utf8')
    writeFileSync(join(place.cwd, 'sluice.yaml'), text.replace(redis.url, redis.url.replace('//', '//:topsecret@')))
    const { code, stderr } = await runCommand(['check', '--store', '--no-secrets'], place)
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/^the store can't be asked: Redis refuses \(ERR unknown command 'auth'\)/),
    })
  })

  it.each<[string, (redis: Redis) => Promise<unknown>, string]>([
    [
      'a record',
      (redis) => redis.hset('sluice:secrets', 'x', '{'),
      'no record: remove the field x of the hash sluice:secrets',
    ],
    [
      'an entry',
      (redis) => redis.xadd('sluice:audit', '1-1', 'x', 'y'),
      'no entry: remove 1-1 of the stream sluice:audit',
    ],
  ])('is not told by check while there is what is not %s, but what to do is', async (_, write, said) => {
    const { redis, place } = await setUp()
    await write(clientOf(redis.url))
    const { code, stderr } = await runCommand(['check', '--store', '--no-secrets'], place)
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(`Redis has what is ${said}`) })
  })

  it('is told at the start where there is something to lose', async () => {
    const { place, start } = await setUp()
    await runCommand(['credentials', 'set', 'harness/prod'], { ...place, input: 'one' })
    const gateway = await start()
    expect(await gateway.line(/"level":40.*Redis has neither/)).toContain('0 clients of the admin API, 1 secret and')
  })

  it('is not told by check where Redis is away, which is an error', async () => {
    const { redis, place } = await setUp()
    await redis.stop()
    const { code, stderr } = await runCommand(['check', '--store', '--no-secrets'], place)
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/^the store can't be asked: .*ECONNREFUSED/),
    })
  })
})
