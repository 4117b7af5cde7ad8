import { execFile, spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { promisify } from 'node:util'
import { Errors } from 'typebox/schema'
import { describe, expect, it, onTestFinished } from 'vitest'
import { parse, parseDocument, visit } from 'yaml'
import { parseConfig } from '../../src/config/load.ts'
import { isLoopback } from '../../src/net/address.ts'
import { ConfigError } from '../../src/config/problem.ts'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { ACCOUNT, harnessConfig, startGateway, TOKEN } from '../support/gateway.ts'
import { readText, ROOT } from './repository.ts'

const EXAMPLES = 'deploy/examples'
const examples = readdirSync(`${ROOT}/${EXAMPLES}`)
  .filter((name) => name.endsWith('.yaml'))
  .map((name) => ({ name, text: readText(`${EXAMPLES}/${name}`) }))

/** The variables that a configuration names, each with a value of the kind that is wanted there. */
function environmentFor(text: string): Record<string, string> {
  const names = [...text.matchAll(/\$\{env:(\w+)\}/g)].map(([, name = '']) => name)
  return Object.fromEntries(names.map((name) => [name, name === 'REDIS_URL' ? 'redis://127.0.0.1:6379' : `of ${name}`]))
}

describe('every example of a configuration', () => {
  it('is the smallest, the one of a whole company, the one for any API, or the one of many limits', () => {
    expect(examples.map(({ name }) => name)).toEqual([
      'any-api.yaml',
      'many-limits.yaml',
      'minimal-harness.yaml',
      'shared-egress.yaml',
    ])
  })

  it.each(examples)('$name names its schema in the first line, for editors', ({ text }) => {
    expect(text.split('\n')[0]).toBe('# yaml-language-server: $schema=../sluice.schema.json')
  })

  it.each(examples)('$name is no mistake to an editor, whatever in it is a reference', ({ text }) => {
    const schema = JSON.parse(readText('deploy/sluice.schema.json')) as object
    expect(Errors(schema, parse(text))).toEqual([true, []])
    const document = parseDocument(text)
    visit(document, { Scalar: (key, node) => void (key === 'key' || (node.value = '${env:X}')) })
    expect(Errors(schema, document.toJS())).toEqual([true, []])
  })

  it.each(examples)('$name is valid with the variables that it names', ({ name, text }) => {
    expect(() => parseConfig(text, { source: name, env: environmentFor(text) })).not.toThrow()
  })

  it.each(examples)('$name has no secret in it: every variable that it names is needed', ({ text }) => {
    const env = environmentFor(text)
    expect(Object.keys(env)).not.toEqual([])
    for (const missing of Object.keys(env)) {
      const { [missing]: _, ...others } = env
      expect(() => parseConfig(text, { env: others })).toThrow(ConfigError)
    }
  })

  it.each(examples)('$name takes every credential from a reference', ({ text }) => {
    for (const [, value] of text.matchAll(/(?:value|token|password): (.*)/g)) expect(value).toMatch(/\$\{(?:env|file):/)
  })
})

describe('the configuration in README.md', () => {
  it('is valid as it stands, with the two secrets that it names', () => {
    const [, text = ''] = /```yaml\n([\s\S]*?)```/.exec(readText('README.md')) ?? []
    const env = environmentFor(text.replaceAll(/#.*/g, ''))
    expect(Object.keys(env)).toEqual(['HARNESS_API_KEY', 'TICKETS_TOKEN'])
    expect(() => parseConfig(text, { env })).not.toThrow()
  })
})

describe('the minimal example', () => {
  it('is checked by the command in deploy/README.md, in an environment without anything', () => {
    const [, command = ''] = /`([^`]*minimal-harness\.yaml)`/.exec(readText('deploy/README.md')) ?? []
    const { PATH, HOME } = process.env
    const { stdout, stderr } = spawnSync('sh', ['-c', command], { cwd: ROOT, env: { PATH, HOME }, encoding: 'utf8' })
    expect(stdout, stderr).toBe(`${EXAMPLES}/minimal-harness.yaml: ok, with 1 upstream, 1 account, 0 clients\n`)
  })

  it('listens on loopback only, and serves Harness without a prefix', () => {
    const text = readText(`${EXAMPLES}/minimal-harness.yaml`)
    const { server, admin, defaultUpstream } = parseConfig(text, { env: environmentFor(text) })
    expect([server.host, admin.host].every(isLoopback)).toBe(true)
    expect(defaultUpstream).toBe('harness')
  })
})

describe('the example of any API', () => {
  it('charges and retries its calls as its comments say', () => {
    const calls = [
      'GET /tickets/tickets/7',
      'POST /tickets/search',
      'POST /tickets/tickets/7/attachments',
      'POST /tickets/hooks/geheim',
      'DELETE /tickets/tickets/7',
    ]
    const argv = ['src/main.ts', 'explain', '--config', `${EXAMPLES}/any-api.yaml`, '--batch']
    const { stdout } = spawnSync(process.execPath, argv, {
      cwd: ROOT,
      input: `${calls.join('\n')}\n`,
      env: { TICKETS_TOKEN: 'secret' },
      encoding: 'utf8',
    })
    const answers = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { charges: string[]; retry: string })
    expect(answers.map(({ charges, retry }) => `${charges.join('+')} ${retry}`)).toEqual([
      'read safe',
      'read safe',
      'upload+write unsafe',
      'write unsafe',
      'write safe',
    ])
  })
})

const hasRequests = spawnSync('python3', ['-c', 'import requests']).status === 0

describe.each([
  {
    client: 'harness_client.py',
    program: 'python3',
    pipeline: 'example_py',
    name: 'Example in Python',
    runs: hasRequests,
  },
  { client: 'harness-client.mjs', program: 'node', pipeline: 'example_js', name: 'Example in JavaScript', runs: true },
])('the example client $client', ({ client, program, pipeline, name, runs }) => {
  const needs = runs ? '' : ' (needs the Python package requests)'

  async function run(sandbox: Sandbox, url: string, env: Record<string, string> = {}): Promise<string> {
    onTestFinished(() => sandbox.stop())
    const options = { env: { PATH: process.env['PATH'], HARNESS_BASE_URL: url, HARNESS_ACCOUNT_ID: ACCOUNT, ...env } }
    const { stdout } = await promisify(execFile)(program, [`${ROOT}/${EXAMPLES}/${client}`], options)
    return stdout
  }

  const expected = `pipeline: ${name}
pipelines: pipeline_1, pipeline_2, pipeline_3, ${pipeline}
execution: Success
`

  it.skipIf(!runs)(
    `makes a pipeline, reads all pages and waits for a run, with no key of its own${needs}`,
    async () => {
      const sandbox = await startSandbox()
      const gateway = await startGateway({ ...harnessConfig(sandbox.url), defaultUpstream: 'harness' })
      expect(await run(sandbox, gateway.url)).toBe(expected)
      const statuses = new Set(sandbox.seen().map(({ status }) => status))
      expect(statuses).toEqual(new Set([200, 404]))
    },
  )

  it.skipIf(!runs)(`need not know that the upstream failed twice in between${needs}`, async () => {
    const sandbox = await startSandbox()
    sandbox.setFaults({ status: 503, times: 2, retryAfter: 0, match: { method: 'GET' } })
    const gateway = await startGateway({ ...harnessConfig(sandbox.url), defaultUpstream: 'harness' })
    expect(await run(sandbox, gateway.url)).toBe(expected)
    expect(sandbox.seen().filter(({ status }) => status === 503)).toHaveLength(2)
  })

  it.skipIf(!runs)(`works without a gateway, too, with the key that it is given${needs}`, async () => {
    const sandbox = await startSandbox()
    expect(await run(sandbox, sandbox.url, { HARNESS_API_KEY: TOKEN })).toBe(expected)
  })
})
