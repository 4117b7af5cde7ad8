import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { createKey } from '../../src/clients/keys.ts'
import { readText } from '../deploy/repository.ts'
import { newFolder, type Seen, startGateway, startUpstream } from '../support/gateway.ts'
import { hasProgram } from '../support/packages.ts'
import { type Client, CLIENTS, FOLDER, page } from './clients.ts'
import { installFromNpm, installFromPyPi } from './install.ts'

const SECRET = 'what-only-the-vendor-knows'
const BASIC = `Basic ${Buffer.from(`robot@example.com:${SECRET}`).toString('base64')}`

/** One call, and then none for a while. */
const ONE = [{ requests: 1, window: '15s' }]

const npm = await installFromNpm()
const pip = hasProgram('python3') ? await installFromPyPi() : undefined

describe.each(CLIENTS)('$name', (client) => {
  const isThere = canRun(client)
  if (!isThere) console.log(`NOT TRIED: ${client.name}, which is not on this machine`)

  it.skipIf(!isThere)(
    'gets the vendor’s answers, and the vendor gets its credential and not the client’s key',
    async () => {
      const { gateway, vendor, key, releaseUrl } = await setUp()
      const { code, stdout, stderr } = await runClient(client, {
        SLUICE_URL: gateway.url,
        SLUICE_KEY: key,
        RELEASE_URL: releaseUrl,
      })
      expect(code, stderr).toBe(0)
      expect(JSON.parse(stdout)).toEqual(client.prints)
      const calls = vendor.seen.filter(({ url }) => url !== '/release')
      expect(calls.length).toBeGreaterThan(0)
      for (const { url, headers } of calls) {
        const given = headers['x-api-key'] ?? headers['api-key'] ?? headers.authorization
        const bare = url.startsWith('/v1/messages') || url.startsWith('/openai/')
        expect(given, url).toBe(bare ? SECRET : url.startsWith('/rest/api/') ? BASIC : `Bearer ${SECRET}`)
      }
      const sent = JSON.stringify(calls)
      expect(sent).not.toContain(key)
      expect(sent).not.toContain(Buffer.from(`me@example.com:${key}`).toString('base64'))
      const lines = gateway.lines.map(({ client, outcome, attempts }) => ({ client, outcome, attempts }))
      const delivered = lines.filter(({ outcome }) => outcome === 'delivered')
      expect(lines.length > delivered.length).toBe(client.isRefusedOnce === true)
      expect(delivered).toEqual(calls.map(() => ({ client: 'tool', outcome: 'delivered', attempts: 1 })))
    },
  )

  it.skipIf(!isThere)('shows its user that a wrong key is refused', async () => {
    const { gateway, vendor, releaseUrl } = await setUp()
    const wrong = createKey().key
    const env = { SLUICE_URL: gateway.url, SLUICE_KEY: wrong, RELEASE_URL: releaseUrl }
    const { code, stdout, stderr } = await runClient(client, env)
    expect(code).not.toBe(0)
    expect(stdout + stderr).toMatch(client.saysOfWrongKey)
    expect(vendor.seen).toEqual([])
  })
})

it('the page of clients tried is made of what is tried here', () => {
  // `node test/clients-tried/write-page.ts` writes it.
  expect(readText('docs/clients-tried.md')).toBe(page())
})

function canRun({ from, package: name }: Client): boolean {
  if (from === 'npm') return npm !== undefined
  return from === 'PyPI' ? pip !== undefined : hasProgram(name)
}

const COMMANDS: Readonly<Record<string, string>> = { mjs: process.execPath, py: 'python3', java: 'java', sh: 'sh' }

async function runClient({ program }: Client, env: Record<string, string>) {
  const file = join(FOLDER, 'programs', program)
  const name = COMMANDS[program.split('.').at(-1)!]!
  const { PATH = '', HOME = '' } = process.env
  // Node looks for packages where a program lies.
  const beside = npm === undefined ? file : join(npm, program)
  if (program.endsWith('.mjs')) copyFileSync(file, beside)
  const child = spawn(name, [program.endsWith('.mjs') ? beside : file], {
    env: { PATH, HOME, ...env, PYTHONPATH: pip ?? '', PYTHONDONTWRITEBYTECODE: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = once(child, 'close')
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  const [code] = (await ended) as [number | null]
  return { code, stdout, stderr }
}

async function setUp() {
  let release = (): void => undefined
  const released = new Promise<void>((resolve) => void (release = resolve))
  const vendor = await startUpstream(async (seen, response) => {
    if (seen.url === '/release') release()
    await answer(seen, response, released)
  })
  const { key, keyHash } = createKey()
  const bearer = { main: { credential: { type: 'bearer', value: SECRET } } }
  const basic = { main: { credential: { type: 'basic', username: 'robot@example.com', password: SECRET } } }
  const bare = { main: { credential: { value: SECRET } } }
  const own = { url: vendor.url, accounts: bearer, limits: { read: [], write: [] } }
  const gateway = await startGateway({
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    defaultUpstream: 'github',
    upstreams: {
      github: { preset: 'github', url: vendor.url, accounts: bearer },
      slack: { preset: 'slack', url: `${vendor.url}/api`, accounts: bearer },
      jira: { preset: 'jira', url: vendor.url, accounts: basic },
      openai: {
        preset: 'openai',
        url: vendor.url,
        accounts: bearer,
        limits: { tokens: ONE },
        queue: { maxWait: '0s' },
      },
      anthropic: {
        preset: 'anthropic',
        url: vendor.url,
        accounts: bare,
        limits: { messages: ONE },
        queue: { maxWait: '0s' },
      },
      azure: { preset: 'azure-openai', url: vendor.url, accounts: bare },
      any: own,
    },
    clients: { tool: { keys: [keyHash] } },
  })
  return { gateway, vendor, key, releaseUrl: `${vendor.url}/release` }
}

const COMPLETION = { choices: [{ index: 0, message: { role: 'assistant', content: 'Hello' } }] }

/** What the vendors answer, in their shapes. */
async function answer(
  { method, url, headers: asked, body }: Seen,
  response: ServerResponse,
  released: Promise<void>,
): Promise<void> {
  const json = (value: object, status = 200, headers: Record<string, string> = {}): void => {
    response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers })
    response.end(JSON.stringify(value))
  }
  // As GitHub's answers have them, URLs in bodies lead to GitHub, and those in Link to where GitHub was asked.
  const repository = 'https://api.github.com/repos/o/r'
  switch (`${method} ${url}`) {
    case 'GET /repos/o/r':
      return json({ id: 1, name: 'r', full_name: 'o/r', url: repository })
    case 'GET /repos/o/r/issues': {
      const link = `<http://${asked.host}/repositories/1/issues?page=2>; rel="next"`
      return json([{ number: 1, title: 'First page', url: `${repository}/issues/1` }], 200, { link })
    }
    case 'GET /repositories/1/issues?page=2':
      return json([{ number: 2, title: 'Second page', url: `${repository}/issues/2` }])
    case 'POST /repos/o/r/issues':
      return json({ number: 3, url: `${repository}/issues/3`, ...(JSON.parse(body) as object) }, 201)
    case 'POST /api/chat.postMessage': {
      const form = new URLSearchParams(body)
      return json({
        ok: form.get('channel') === 'C1' && form.get('text') === 'Built & shipped',
        ts: '1700000000.000100',
      })
    }
    case 'GET /rest/api/3/issue/KEY-1':
      return json({ id: '1', key: 'KEY-1' })
    case 'POST /rest/api/3/issue':
      return json({ id: '2', key: 'KEY-2', ...(JSON.parse(body) as object) }, 201)
    case 'GET /things/1':
      return json({ id: '1' })
    case 'POST /things':
      return json(JSON.parse(body) as object)
    case 'POST /openai/deployments/gpt-5/chat/completions?api-version=2024-10-21':
      return json(COMPLETION)
    case 'POST /v1/messages': {
      const usage = { input_tokens: 2, output_tokens: 2 }
      const message = { id: 'm', type: 'message', role: 'assistant', model: 'claude', stop_reason: null, content: [] }
      if (!body.includes('"stream":true'))
        return json({ ...message, content: [{ type: 'text', text: 'Hello' }], usage })
      const event = (type: string, data: object): string => {
        return `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`
      }
      const text = (piece: string): string =>
        event('content_block_delta', { index: 0, delta: { type: 'text_delta', text: piece } })
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write(event('message_start', { message: { ...message, usage: { ...usage, output_tokens: 1 } } }))
      response.write(event('content_block_start', { index: 0, content_block: { type: 'text', text: '' } }))
      response.write(text('Hel'))
      await released
      response.write(text('lo') + event('content_block_stop', { index: 0 }))
      response.write(event('message_delta', { delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 2 } }))
      response.end(event('message_stop', {}))
      return
    }
    case 'POST /v1/chat/completions': {
      if (!body.includes('"stream":true')) return json(COMPLETION)
      const chunk = (content: string): string =>
        `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write(chunk('Hel'))
      await released
      response.end(`${chunk('lo')}data: [DONE]\n\n`)
      return
    }
    case 'GET /release':
      return json({})
    default:
      return json({ message: `no such thing: ${method} ${url}` }, 404)
  }
}
