import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { createGateway } from '../../src/index.ts'
import { harnessConfig, newFolder, startUpstream, stores } from '../support/gateway.ts'
import { runCommand } from '../support/command-line.ts'
import { call } from '../support/http.ts'
import { Program } from '../support/process.ts'

const READ = '/harness/ng/api/projects'

/** Starts a gateway with this configuration in a folder with these files. */
async function startIn(config: object, files: Record<string, string>) {
  const cwd = newFolder()
  const write = (name: string, text: string): void => writeFileSync(join(cwd, name), text)
  for (const [name, text] of Object.entries(files)) write(name, text)
  write('sluice.yaml', stringify(config))
  const program = new Program(['start'], { cwd })
  const { url, admin } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string; admin: string }
  return { program, cwd, write, url, admin }
}

describe.each([1, 2])('a token of the admin port that its file changes, with %i processes', (workers) => {
  it('is good at once instead of the one before, whose sessions end; no reload asks for a restart', async () => {
    const { url } = await startUpstream()
    const tokens = { token: '${file:main}', tokens: { alice: '${file:alice}' }, metricsToken: '${file:metrics}' }
    const config = { ...harnessConfig(url), server: { port: 0, workers }, admin: { port: 0, ...tokens } }
    const files = { main: 'main-1', alice: 'alice-1', metrics: 'metrics-1' }
    const { admin, write, program } = await startIn(config, files)
    const ask = async (path: string, token: string, method = 'GET') =>
      call(admin, path, { method, headers: { authorization: `Bearer ${token}` } })
    const statusOf = async (path: string, token: string): Promise<number> => (await ask(path, token)).status
    const signIn = await call(admin, '/sign-in', {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: 'token=alice-1',
    })
    const cookie = signIn.headers['set-cookie']![0]!.split(';')[0]!
    const pageStatus = async () => (await call(admin, '/requests/x', { headers: { cookie } })).status
    expect(await pageStatus()).toBe(404)
    for (const name of Object.keys(files)) write(name, `${name}-2`)
    for (const name of ['main', 'alice']) {
      await expect.poll(() => statusOf('/v1/clients', `${name}-2`)).toBe(200)
      expect(await statusOf('/v1/clients', `${name}-1`)).toBe(401)
    }
    await expect.poll(() => statusOf('/metrics', 'metrics-2')).toBe(200)
    expect(await statusOf('/metrics', 'metrics-1')).toBe(401)
    expect(await pageStatus()).toBe(303)
    expect((await ask('/v1/reload', 'main-2', 'POST')).json()).toEqual({
      data: { result: 'unchanged', needRestart: [] },
    })
    write('main', 'main-3\nof two lines')
    await program.line(/holds a control character/)
    expect(await statusOf('/v1/clients', 'main-2')).toBe(200)
    expect(program.stdout).not.toMatch(/main-[123]|alice-[12]/)
  })
})

it('a token whose file was just changed is taken by the reload that comes next, without a restart', async () => {
  const folder = newFolder()
  const token = join(folder, 'token')
  writeFileSync(token, 'one')
  const config = harnessConfig('http://127.0.0.1:1', {}, { admin: { port: 0, token: `\${file:${token}}` } })
  const gateway = createGateway({ ...config, log: { level: 'silent' } } as Parameters<typeof createGateway>[0])
  onTestFinished(() => gateway.close())
  const { adminUrl } = await gateway.listen()
  writeFileSync(token, 'two')
  expect(await gateway.reload()).toEqual({ result: 'unchanged', needRestart: [] })
  const { status } = await call(adminUrl, '/v1/clients', { headers: { authorization: 'Bearer two' } })
  expect(status).toBe(200)
})

it('the URL of Redis, with its password, that its file changes takes a restart, and a reload says so', async () => {
  const { url, ...store } = stores.Redis() as { url: string }
  const config = harnessConfig('http://127.0.0.1:1', {}, { store: { ...store, url: '${file:url}' } })
  const { write, program, admin } = await startIn(config, { url })
  write('url', `${url}/0`)
  await program.line(/"needRestart":\["store.url"\]/)
  const { data } = (await call(admin, '/v1/reload', { method: 'POST' })).json() as { data: object }
  expect(data).toEqual({ result: 'unchanged', needRestart: ['store.url'] })
})

/** A proxy that takes one password at a time. */
async function startProxy(password: string) {
  const state = { password, refused: 0 }
  const sockets = new Set<Socket>()
  const proxy = createServer((_, response) => response.writeHead(405).end())
  proxy.on('connection', (socket) => void sockets.add(socket))
  proxy.on('connect', ({ url = '', headers }, client: Socket) => {
    client.on('error', () => undefined)
    if (headers['proxy-authorization'] !== `Basic ${Buffer.from(`me:${state.password}`).toString('base64')}`) {
      state.refused++
      client.end('HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n')
      return
    }
    const upstream = connect(Number(url.split(':').at(-1)), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n')
      client.pipe(upstream).pipe(client)
    })
    upstream.on('error', () => void client.destroy())
  })
  await new Promise<void>((resolve) => void proxy.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    proxy.close()
  })
  return { state, port: (proxy.address() as AddressInfo).port }
}

it('the password of an outbound proxy that its file changes is used for the next connection', async () => {
  const { state, port } = await startProxy('one')
  const { url } = await startUpstream((_, response) => response.writeHead(200, { connection: 'close' }).end())
  const upstream = { proxy: `http://me:\${file:password}@127.0.0.1:${port}`, retry: { retries: 0 } }
  const gateway = await startIn(harnessConfig(url, upstream), { password: 'one' })
  expect((await call(gateway.url, READ)).status).toBe(200)
  state.password = 'two'
  expect((await call(gateway.url, READ)).status).toBe(502)
  gateway.write('password', 'no%escape')
  await gateway.program.line(/must be the URL of a proxy/)
  gateway.write('password', 'two')
  await expect.poll(async () => (await call(gateway.url, READ)).status).toBe(200)
  expect(gateway.program.stdout).not.toContain('no%escape')
})

it('a master key that its files change opens the store, whether they change before it or after it', async () => {
  const [one, two, three] = [0, 1, 2].map(() => randomBytes(32).toString('base64')) as [string, string, string]
  const upstream = await startUpstream()
  const secrets = { key: '${file:key}', oldKeys: ['${file:old}'] }
  const account = { accounts: { prod: { id: 'acct1234', credential: { value: '${secret:api}' } } } }
  // Without the watch no reload helps.
  const server = { port: 0, watch: false }
  const config = { ...harnessConfig(upstream.url, account), server, store: { dir: '.' }, secrets }
  const cwd = newFolder()
  const write = (name: string, text: string): void => writeFileSync(join(cwd, name), text)
  write('sluice.yaml', stringify(config))
  write('key', one)
  write('old', one)
  const command = async (args: string[], input = ''): Promise<void> => {
    expect(await runCommand(['credentials', ...args], { cwd, input })).toMatchObject({ code: 0 })
  }
  await command(['set', 'api'], 'first')
  const program = new Program(['start'], { cwd })
  const { url } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string }
  const sent = async (): Promise<unknown> => {
    await call(url, READ)
    return upstream.seen.at(-1)!.headers['x-api-key']
  }
  expect(await sent()).toBe('first')
  write('old', one)
  write('key', two)
  await program.line(/"references":\["file:key"\],"msg":"a secret has a new value"/)
  await command(['rotate', '--key'])
  await command(['set', 'api'], 'second')
  await expect.poll(sent).toBe('second')
  // Here the store is sealed with a key that the gateway gets to know later.
  const elsewhere = newFolder()
  writeFileSync(
    join(elsewhere, 'sluice.yaml'),
    stringify({ ...config, store: { dir: cwd }, secrets: { key: three, oldKeys: [two] } }),
  )
  for (const [args, input] of [
    [['rotate', '--key'], ''],
    [['set', 'api'], 'third'],
  ] as const) {
    expect(await runCommand(['credentials', ...args], { cwd: elsewhere, input })).toMatchObject({ code: 0 })
  }
  await program.line(/sealed with another master key/)
  write('key', three)
  await expect.poll(sent).toBe('third')
})

it('what workers use, and its file changes, is judged and told of by the workers alone, and is no change to a reload', async () => {
  const upstream = await startUpstream()
  const accounts = { prod: { id: 'a', credential: { value: '${file:key}' } } }
  const server = { port: 0, workers: 2 }
  const config = { ...harnessConfig(upstream.url, { accounts }), server }
  const { program, admin, write } = await startIn(config, { key: 'one' })
  const told = (text: string) =>
    program.stdout
      .split('\n')
      .flatMap((line) => (line.includes(text) ? [(JSON.parse(line) as { pid: number }).pid] : []))
  write('key', 'two\nlines')
  await expect.poll(() => new Set(told('holds a control character')).size).toBe(2)
  write('key', 'three')
  await expect.poll(() => new Set(told('a secret has a new value')).size).toBe(2)
  const reload = async () => (await call(admin, '/v1/reload', { method: 'POST' })).json().data
  await expect.poll(reload).toEqual({ result: 'unchanged', needRestart: [] })
  expect(new Set(told('a secret has a new value'))).toEqual(new Set(told('holds a control character')))
  expect(program.stdout).not.toContain('two')
})
