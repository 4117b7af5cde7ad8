import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { stringify } from 'yaml'
import { readSecretFile } from '../../src/secrets/files.ts'
import { harnessConfig, newFolder, startConfigured, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { startProcessIn } from '../support/process.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { loadConfigFile } from '../support/load-config.ts'

const PATH = '/harness/ng/api/projects'

/** A gateway whose credential is in a file of that folder, by a relative path. */
async function startWithFile(folder: string, file: string) {
  const upstream = await startUpstream()
  const accounts = { prod: { id: 'a', credential: { value: `Key \${file:${file}}` } } }
  writeFileSync(join(folder, 'sluice.yaml'), stringify(harnessConfig(upstream.url, { accounts })))
  const gateway = await startConfigured(loadConfigFile(join(folder, 'sluice.yaml')))
  return async () => {
    await call(gateway.url, PATH)
    return upstream.seen.at(-1)!.headers['x-api-key']
  }
}

it('a secret in a file that is written anew, or replaced, is in force without a restart', async () => {
  const folder = newFolder()
  writeFileSync(join(folder, 'key'), 'one\n')
  const sent = await startWithFile(folder, 'key')
  expect(await sent()).toBe('Key one')
  writeFileSync(join(folder, 'key'), 'two\n')
  await expect.poll(sent).toBe('Key two')
  writeFileSync(join(folder, 'key.new'), 'three\n')
  renameSync(join(folder, 'key.new'), join(folder, 'key'))
  await expect.poll(sent).toBe('Key three')
})

it('a secret in a mounted folder follows the link by which Kubernetes replaces all of it', async () => {
  const folder = newFolder()
  for (const [version, value] of [
    ['v1', 'one'],
    ['v2', 'two'],
  ] as const) {
    mkdirSync(join(folder, version))
    writeFileSync(join(folder, version, 'key'), value)
  }
  symlinkSync('v1', join(folder, '..data'))
  symlinkSync('..data/key', join(folder, 'key'))
  const sent = await startWithFile(folder, 'key')
  expect(await sent()).toBe('Key one')
  symlinkSync('v2', join(folder, '..data_tmp'))
  renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
  await expect.poll(sent).toBe('Key two')
})

it('a secret whose file is empty, gone, or of no use for a header keeps its value', async () => {
  const folder = newFolder()
  const file = join(folder, 'key')
  writeFileSync(file, 'one')
  const sent = await startWithFile(folder, 'key')
  const empty = ['', '\n', '\r\n', ' ', '\t \n\n', '\0\0\n'].map((text) => () => writeFileSync(file, text))
  for (const change of [...empty, () => writeFileSync(file, 'two\nlines'), () => rmSync(file)]) {
    change()
    // Longer than a change takes to be noticed; what was wrong to do would be done by then.
    await new Promise((resolve) => void setTimeout(resolve, 150))
    expect(await sent()).toBe('Key one')
  }
  writeFileSync(file, 'three')
  await expect.poll(sent).toBe('Key three')
})

it('a private key in a file that is cut short, or of another type, stays what it was', async () => {
  const upstream = await startUpstream()
  const folder = newFolder()
  const file = join(folder, 'key')
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
  writeFileSync(file, pem)
  const credential = { type: 'jwt', key: '${file:key}', algorithm: 'RS256' }
  const upstreams = { api: { url: upstream.url, accounts: { main: { credential } } } }
  const config = { server: { port: 0 }, admin: { port: 0 }, store: { dir: newFolder() }, upstreams }
  writeFileSync(join(folder, 'sluice.yaml'), stringify(config))
  const clock = new SimulatedClock(Date.now())
  const gateway = await startConfigured(loadConfigFile(join(folder, 'sluice.yaml')), { clock })
  const other = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })
  for (const wrong of [pem.slice(0, 500), other]) {
    writeFileSync(file, wrong)
    // The file is looked at every five seconds, and no token is valid for so long.
    await clock.advance(600_000)
    expect((await call(gateway.url, '/api/x')).status).toBe(200)
  }
})

it.each([
  [
    'a password',
    'authorization',
    { type: 'basic', username: 'me', password: '${file:key}' },
    `Basic ${btoa('me:one')}`,
  ],
  [
    'a session token',
    'x-amz-security-token',
    {
      type: 'sigv4',
      accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
      secretAccessKey: 's',
      sessionToken: '${file:key}',
      region: 'a',
      service: 'b',
    },
    'one',
  ],
])(
  '%s whose file is cut off or overwritten with what can’t be sent keeps its value',
  async (_, header, credential, expected) => {
    const folder = newFolder()
    const file = join(folder, 'key')
    writeFileSync(file, 'one')
    const upstream = await startUpstream()
    const api = { url: upstream.url, accounts: { main: { credential } }, limits: { read: [] } }
    const config = { server: { port: 0 }, admin: { port: 0 }, store: { dir: newFolder() }, upstreams: { api } }
    writeFileSync(join(folder, 'sluice.yaml'), stringify(config))
    const gateway = await startConfigured(loadConfigFile(join(folder, 'sluice.yaml')))
    for (const text of ['\0', 'two\nlines', 'two\x7f']) {
      writeFileSync(file, text)
      await new Promise((resolve) => void setTimeout(resolve, 150))
      expect((await call(gateway.url, '/api/x')).status).toBe(200)
      expect(upstream.seen.at(-1)?.headers[header]).toBe(expected)
    }
  },
)

it.each([
  [
    'an access key id',
    {
      type: 'sigv4',
      accessKeyId: '${file:id}',
      secretAccessKey: '${file:key}',
      region: 'a',
      service: 'b',
    },
    ['AKIAIOSFODNN7EXAMPLE', 'ASIAIOSFODNN7EXAMPLE', 'no id'],
    /Credential=(\w+)\//,
  ],
  ['a user name', { type: 'basic', username: '${file:id}', password: '${file:key}' }, ['me', 'you', 'a:b'], /^(.+):/],
])('%s is renewed as its secret is, and not by what can be none', async (_, credential, ids, sentAs) => {
  const folder = newFolder()
  const file = join(folder, 'id')
  const [one, two, wrong] = ids as [string, string, string]
  writeFileSync(file, one)
  writeFileSync(join(folder, 'key'), 'secret')
  const upstream = await startUpstream()
  const api = { url: upstream.url, accounts: { main: { credential } }, limits: { read: [] } }
  const config = { server: { port: 0 }, admin: { port: 0 }, store: { dir: newFolder() }, upstreams: { api } }
  writeFileSync(join(folder, 'sluice.yaml'), stringify(config))
  const gateway = await startConfigured(loadConfigFile(join(folder, 'sluice.yaml')))
  const sent = async () => {
    await call(gateway.url, '/api/x')
    const header = upstream.seen.at(-1)!.headers.authorization!
    return sentAs.exec(header.startsWith('Basic ') ? atob(header.slice('Basic '.length)) : header)?.[1]
  }
  expect(await sent()).toBe(one)
  writeFileSync(file, two)
  await expect.poll(sent).toBe(two)
  writeFileSync(file, wrong)
  await new Promise((resolve) => void setTimeout(resolve, 150))
  expect(await sent()).toBe(two)
})

it('a 401 makes the gateway look into the file at once, and send the call again', async () => {
  const folder = newFolder()
  const file = join(folder, 'key')
  writeFileSync(file, 'one')
  const answers: number[] = []
  const upstream = await startUpstream(({ headers }, response) => {
    const status = headers['x-api-key'] === 'two' ? 200 : 401
    answers.push(status)
    response.writeHead(status).end()
  })
  const accounts = { prod: { id: 'a', credential: { value: '${file:key}' } } }
  writeFileSync(join(folder, 'sluice.yaml'), stringify(harnessConfig(upstream.url, { accounts })))
  // Under a clock that stands still nothing else looks.
  const gateway = await startConfigured(loadConfigFile(join(folder, 'sluice.yaml')), { clock: new SimulatedClock() })
  writeFileSync(file, 'two')
  const answer = await call(gateway.url, PATH, { method: 'POST', body: '{}' })
  expect(answer).toMatchObject({ status: 200, headers: { 'x-sluice-attempts': '2' } })
  expect(answers).toEqual([401, 200])
})

it('a secret whose file is emptied keeps its value in a gateway that watches its configuration, and the log says so', async () => {
  const folder = newFolder()
  const file = join(folder, 'key')
  writeFileSync(file, 'one\n')
  const upstream = await startUpstream()
  const accounts = { prod: { id: 'a', credential: { value: 'Key ${file:key}' } } }
  const config = { ...harnessConfig(upstream.url, { accounts }), log: { format: 'json' } }
  writeFileSync(join(folder, 'sluice.yaml'), stringify(config))
  const gateway = await startProcessIn(folder)
  const sent = async () => {
    await call(gateway.url, PATH)
    return upstream.seen.at(-1)!.headers['x-api-key']
  }
  expect(await sent()).toBe('Key one')
  writeFileSync(file, '\n')
  const line = await gateway.line(/was not reloaded/)
  expect(line).toContain('the file key is empty')
  expect(await sent()).toBe('Key one')
  writeFileSync(file, 'two\n')
  await expect.poll(sent).toBe('Key two')
})

it('a secret in a file is text in UTF-8, without the byte order mark of an editor', () => {
  const file = join(newFolder(), 'key')
  const read = (text: string, encoding: BufferEncoding = 'utf8') => {
    writeFileSync(file, text, encoding)
    return readSecretFile(file, 'key')
  }
  expect(read('\uFEFFone\r\n')).toEqual({ text: 'one' })
  expect(read('é\n')).toEqual({ text: 'é' })
  const problem = 'the file key is not in UTF-8, so its characters would be others: save it in this encoding'
  expect(read('é\n', 'latin1')).toEqual({ problem })
  expect(read('\uFEFFone\n', 'utf16le')).toEqual({ problem })
  expect(read('# Behörde\n-----BEGIN CERTIFICATE-----\n', 'latin1')).toHaveProperty('text')
})
