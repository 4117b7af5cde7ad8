import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { hashKey } from '../../src/clients/keys.ts'
import { formsOf } from '../../src/credentials/forms.ts'
import { newFolder, stores } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'
import { Program, run } from '../support/process.ts'

/** One of each kind; with characters that URLs, JSON and Base64 write differently. */
const SECRETS = {
  credential: 'credential+of/the=vendor&A1',
  password: 'password+of/the=vendor&B2',
  parameter: 'parameter+of/the=vendor&C3',
  stored: 'stored+of/the=vendor&D4',
  ofPool: 'pooled+of/the=vendor&E5',
  adminToken: 'token+of/the=operator&F6',
  clientKey: 'slk_key+of/the=client&G7',
  wrongKey: 'slk_wrong+key/of=nobody&H8',
  hook: 'hookTokenOfThePathI9',
  masterKey: randomBytes(32).toString('base64'),
}
const FORMS = Object.entries(SECRETS).flatMap(([name, secret]) => {
  const hex = Buffer.from(secret).toString('hex')
  return [...formsOf(secret), hex, hex.toUpperCase(), Buffer.from(encodeURIComponent(secret)).toString('hex')].map(
    (form) => ({ name, form }),
  )
})

function leaksIn(where: string, text: string): string[] {
  expect(text.length, where).toBeGreaterThan(0)
  return FORMS.filter(({ form }) => text.includes(form)).map(({ name, form }) => `${where}: ${name} as ${form}`)
}

it('would find every secret in every encoding', () => {
  for (const [name, secret] of Object.entries(SECRETS)) {
    for (const text of [secret, encodeURIComponent(secret), JSON.stringify({ secret }), `Bearer ${secret}`]) {
      expect(leaksIn('here', text).join()).toContain(name)
      for (const encoding of ['hex', 'base64', 'base64url'] as const)
        expect(leaksIn('here', Buffer.from(text).toString(encoding)).join()).toContain(name)
    }
  }
})

/** What an upstream does with all that it was sent, by the first segment of the path. */
const ways: Record<string, (head: string, socket: Socket) => void> = {
  body: (head, socket) =>
    void socket.end(`HTTP/1.1 500 No\r\nContent-Length: ${head.length}\r\nContent-Type: text/plain\r\n\r\n${head}`),
  pieces(head, socket) {
    socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n')
    const bytes = Buffer.from(head)
    for (let at = 0; at < bytes.length; at += 7) {
      const piece = bytes.subarray(at, at + 7)
      socket.write(`${piece.length.toString(16)}\r\n${piece.toString('latin1')}\r\n`, 'latin1')
    }
    socket.end(`0\r\nX-End: ${lineOf(head)}\r\n\r\n`)
  },
  header: (head, socket) =>
    void socket.end(`HTTP/1.1 200 ${lineOf(head)}\r\nX-Echo: ${lineOf(head)}\r\nContent-Length: 0\r\n\r\n`),
  encoded(head, socket) {
    const body = [Buffer.from(head).toString('base64'), encodeURIComponent(head), JSON.stringify(head)].join(' ')
    socket.end(`HTTP/1.1 404 No\r\nContent-Length: ${body.length}\r\nContent-Type: application/json\r\n\r\n${body}`)
  },
  garbage: (head, socket) => void socket.end(`${head} is no HTTP`),
  broken: (head, socket) => void socket.end(`HTTP/1.1 200 OK\r\nX-Echo: a\0${lineOf(head)}\r\n\r\n`),
  halves: (head, socket) =>
    void socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n${head}`, () => socket.destroy()),
  reset: (_, socket) => void socket.resetAndDestroy(),
  refused: (head, socket) =>
    void socket.end(`HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="${lineOf(head)}"\r\nContent-Length: 0\r\n\r\n`),
  silent: () => undefined,
}

const lineOf = (head: string): string => head.replaceAll(/[\r\n]+/g, ' ')

async function startEchoes(): Promise<{ url: string; seen: string[] }> {
  const seen: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => {
      const head = chunk.toString()
      seen.push(head)
      const [, way = ''] = /^\w+ \/(?:pipeline\/api\/webhook\/custom\/)?(\w+)/.exec(head) ?? []
      ;(ways[way] ?? ways['body']!)(head, socket)
    })
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen }
}

it.each(['file', 'redis'] as const)(
  'nothing anywhere has a secret in it after echoes, faults, wrong configurations and a crash: store in %s',
  async (kind) => {
    const upstream = await startEchoes()
    const cwd = newFolder()
    const env = {
      CREDENTIAL: SECRETS.credential,
      PASSWORD: SECRETS.password,
      TOKEN: SECRETS.adminToken,
      MASTER: SECRETS.masterKey,
    }
    writeFileSync(join(cwd, 'parameter'), SECRETS.parameter)
    const redisStore = stores.Redis()
    const shared = {
      url: upstream.url,
      retry: { retries: 1, baseDelay: '1ms' },
      timeouts: { headers: '300ms' },
      breaker: { failures: 1_000 },
    }
    const accounts: Record<string, object> = {
      header: { credential: { header: 'x-api-key', value: '${env:CREDENTIAL}' } },
      basic: { credential: { type: 'basic', username: 'me', password: '${env:PASSWORD}' } },
      query: { credential: { type: 'query', parameter: 'key', value: '${file:parameter}' } },
      stored: { credential: { type: 'bearer', value: '${secret:api}' } },
      pool: {
        credentials: [
          { name: 'a', type: 'bearer', value: SECRETS.ofPool },
          { name: 'b', type: 'bearer', value: '${env:CREDENTIAL}' },
        ],
      },
    }
    const upstreams = Object.fromEntries(
      Object.entries(accounts).map(([name, main]) => [name, { ...shared, accounts: { main } }]),
    )
    const config = {
      server: { port: 0 },
      admin: { port: 0, token: '${env:TOKEN}' },
      log: { level: 'debug' },
      store: kind === 'redis' ? redisStore : { dir: 'data' },
      secrets: { key: '${env:MASTER}' },
      upstreams: {
        ...upstreams,
        harness: { ...shared, preset: 'harness', accounts: { main: { id: 'a', ...accounts['header'] } } },
      },
      clients: { tool: { keys: [hashKey(SECRETS.clientKey)] } },
    }
    const file = join(cwd, 'sluice.yaml')
    writeFileSync(file, stringify(config))
    const found: string[] = []
    const look = (where: string, text: string): void => void found.push(...leaksIn(where, text))
    const command = async (args: string[], input?: string): Promise<void> => {
      const { stdout, stderr } = await run(args, { cwd, env, ...(input === undefined ? {} : { input }) })
      look(args.join(' '), `${stdout}${stderr}`)
    }
    await command(['credentials', 'set', 'api'], SECRETS.stored)
    const start = async () => {
      const program = new Program(['start'], { cwd, env })
      const { url, admin } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string; admin: string }
      return { program, url, admin }
    }
    const callAll = async (url: string, key: string): Promise<void> => {
      const targets = [...Object.keys(accounts).flatMap((name) => Object.keys(ways).map((way) => `/${name}/${way}`))]
      targets.push(...Object.keys(ways).map(() => `/harness/pipeline/api/webhook/custom/${SECRETS.hook}/v3`))
      for (const target of targets) {
        const client = await RawClient.connect(url)
        client.write(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Sluice-Key: ${key}\r\n\r\n`)
        const answer = await client.closed()
        // What a client sent itself, an upstream may tell it.
        look(`answer to ${target.replace(SECRETS.hook, '')}`, ` ${answer.replaceAll(SECRETS.hook, '')}`)
      }
    }
    const lookAtAdmin = async (admin: string): Promise<void> => {
      for (const path of ['/metrics', '/healthz', '/readyz', ...V1]) {
        for (const token of [SECRETS.adminToken, SECRETS.wrongKey]) {
          const { rawHeaders, body } = await call(admin, path, { headers: { authorization: `Bearer ${token}` } })
          look(path, rawHeaders.join() + body)
        }
      }
    }
    const first = await start()
    await callAll(first.url, SECRETS.clientKey)
    await call(first.url, '/header/body', { headers: { 'x-sluice-key': SECRETS.wrongKey } })
    await lookAtAdmin(first.admin)
    writeFileSync(file, stringify({ ...config, clients: SECRETS.clientKey, admin: { tokn: SECRETS.adminToken } }))
    await first.program.line(/"level":50/)
    await command(['check'])
    writeFileSync(file, stringify(config))
    look(
      'process title',
      readFileSync(`/proc/${first.program.child.pid}/cmdline`, 'utf8') +
        readFileSync(`/proc/${first.program.child.pid}/comm`, 'utf8'),
    )
    // In the middle of calls.
    const open = await RawClient.connect(first.url)
    open.write(`GET /header/silent HTTP/1.1\r\nHost: x\r\nX-Sluice-Key: ${SECRETS.clientKey}\r\n\r\n`)
    first.program.kill('SIGKILL')
    await first.program.ended
    look('log before the crash', first.program.stdout + first.program.stderr)
    const second = await start()
    await call(second.url, '/stored/encoded', { headers: { 'x-sluice-key': SECRETS.clientKey } })
    await lookAtAdmin(second.admin)
    for (const args of [
      ['explain', 'GET', '/query/x'],
      ['explain', '--json', 'GET', '/basic/x'],
      ['check'],
      ['schema'],
    ])
      await command(args)
    if (kind === 'redis') await command(['credentials', 'list'])
    second.program.kill('SIGTERM')
    await second.program.ended
    look('log after the crash', second.program.stdout + second.program.stderr)
    if (kind === 'redis') look('Redis', await dumpOf(redisStore.prefix))
    else look('data folder', contentsOf(join(cwd, 'data')))
    // That there was something to find.
    for (const name of ['credential', 'parameter', 'stored', 'ofPool'] as const)
      expect(
        upstream.seen.some((head) => formsOf(SECRETS[name]).some((form) => head.includes(form))),
        name,
      ).toBe(true)
    expect([...new Set(found)]).toEqual([])
  },
  180_000,
)

const V1 = ['quota', 'queue', 'clients', 'accounts', 'upstreams', 'credentials', 'breakers', 'audit', 'presets'].map(
  (name) => `/v1/${name}`,
)

function contentsOf(folder: string): string {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((file) => file.isFile())
  return files.map(({ name, parentPath }) => `${name} ${readFileSync(join(parentPath, name), 'latin1')}`).join('\n')
}

/** Every key of a test with its value, as Redis writes it to disk, where short texts are not compressed, and as it reads it. */
async function dumpOf(prefix: string): Promise<string> {
  const redis = new Redis(inject('redisUrl'))
  onTestFinished(() => redis.disconnect())
  const keys = await redis.keys(`*${prefix}*`)
  const dumps = await Promise.all(
    keys.map(async (key) => `${key} ${(await redis.dumpBuffer(key))?.toString('latin1')}`),
  )
  const hashes = await Promise.all(
    keys.map(async (key) => ((await redis.type(key)) === 'hash' ? JSON.stringify(await redis.hgetall(key)) : '')),
  )
  return [...dumps, ...hashes].join('\n')
}
