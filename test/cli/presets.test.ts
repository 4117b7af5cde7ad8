import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { presets } from '../../src/config/presets/index.ts'
import { runCommand } from '../support/command-line.ts'
import { newFolder } from '../support/gateway.ts'

describe('sluice preset', () => {
  it('lists every preset, with its classes', async () => {
    const { code, stdout } = await runCommand(['preset', 'list'])
    expect(code).toBe(0)
    expect(stdout.trim().split('\n')).toHaveLength(1 + Object.keys(presets).length)
    expect(stdout).toMatch(/^PRESET +URL +CLASSES\n/)
    expect(stdout).toMatch(/^harness +https:\/\/app\.harness\.io +read write template webhook$/m)
  })

  it.each(
    Object.keys(presets).flatMap((name) => [
      [name, 'with its routes', ['--routes']],
      [name, 'as a whole', []],
    ]) as [string, string, string[]][],
  )('shows %s %s as a configuration that is right without the preset', async (name, _, options) => {
    const cwd = newFolder()
    const { code, stdout } = await runCommand(['preset', 'show', name, ...options])
    expect(code).toBe(0)
    const shown = parse(stdout) as { upstreams: Record<string, object> }
    const account = { credential: { value: 'not-a-secret' } }
    const upstream = { url: 'https://site.example', ...shown.upstreams[name], accounts: { main: account } }
    writeFileSync(join(cwd, 'sluice.yaml'), stringify({ upstreams: { [name]: upstream } }))
    expect(await runCommand(['check'], { cwd })).toMatchObject({
      code: 0,
      stderr: expect.not.stringContaining('error'),
    })
  })

  it('proposes the preset that may be meant', async () => {
    const { code, stderr } = await runCommand(['preset', 'show', 'harnes'])
    expect({ code, stderr }).toEqual({ code: 1, stderr: 'there is no preset "harnes"; did you mean "harness"?\n' })
    expect((await runCommand(['preset', 'show', 'constructor'])).code).toBe(1)
  })
})

describe('sluice routes', () => {
  async function proposed(document: unknown, ...args: string[]) {
    const cwd = newFolder()
    const file = join(cwd, 'api.yaml')
    writeFileSync(file, typeof document === 'string' ? document : stringify(document))
    const { code, stdout, stderr } = await runCommand(['routes', file, ...args], { cwd })
    return { code, stderr, stdout, routes: code === 0 ? (parse(stdout) as { routes: object[] }).routes : [] }
  }

  it('has the words of the document in no line of their own', async () => {
    const paths = {
      '/a': { get: {} },
      '/z\nupstreams: evil': 5,
      '/y\nadmin: evil?x': { get: {} },
      '/y\nadmin: evil': { get: {} },
    }
    const { stdout } = await proposed({ openapi: '3.1.0', servers: [{ url: 'https://h/v1\nstore: evil' }], paths })
    expect(stdout).toContain('evil')
    expect(stdout).not.toMatch(/^ *\w+: evil/m)
  })

  it('counts one operation and one guess as one', async () => {
    const { stdout } = await proposed({ openapi: '3.1.0', paths: { '/agents/{id}/restart': { get: {} } } })
    expect(stdout).toMatch(/^# Proposed for 1 operation of .*\. 1 is a guess, marked with/)
  })

  it('says of each operation its class, whether it is safe to retry, and why', async () => {
    const { stdout, routes } = await proposed({
      openapi: '3.1.0',
      paths: {
        '/agents': { get: {}, post: { operationId: 'createAgent' }, parameters: [], 'x-note': {} },
        '/agents/search': { post: {} },
        '/agents/{listId}/items': { post: { operationId: 'listItems' }, delete: {} },
        '/agents/{listId}': { post: {} },
        '/agents/{id}:search': { post: {} },
        '/agents/{id}/restart': { get: {} },
        'x-more': {},
      },
    })
    expect(routes).toEqual([
      { method: 'GET', path: '/agents', class: 'read' },
      { method: 'POST', path: '/agents', class: 'write' },
      { method: 'POST', path: '/agents/search', class: 'read', retry: 'safe' },
      { method: 'POST', path: '/agents/{listId}/items', class: 'read' },
      { method: 'DELETE', path: '/agents/{listId}/items', class: 'write' },
      { method: 'POST', path: '/agents/{listId}', class: 'write' },
      { method: 'POST', path: '/agents/{id}:search', class: 'read' },
      { method: 'GET', path: '/agents/{id}/restart', class: 'write', retry: 'unsafe' },
    ])
    expect(stdout).toContain('class: read, retry: safe } # a guess: its path names a question')
    expect(stdout).toContain('class: read } # a guess: it is named "listItems"')
  })

  it.each(['harness', 'everruns'])('reproduces the classes of the table of %s', async (name) => {
    const table = presets[name]!.routes().flatMap(({ methods = [], path, rule }) =>
      methods.map((method) => ({ method, path, class: rule.class, charges: rule.charges?.join() })),
    )
    const paths: Record<string, Record<string, object>> = {}
    for (const { method, path } of table) (paths[path] ??= {})[method.toLowerCase()] = {}
    const classes = async (...args: string[]) =>
      new Map(
        (await proposed({ swagger: '2.0', paths }, ...args)).routes.map((route) => {
          const { method, path, class: className } = route as { method: string; path: string; class: string }
          return [`${method} ${path}`, className]
        }),
      )
    const shareIn = (found: Map<string, string>, of: typeof table): number =>
      of.filter(({ method, path, class: own }) => found.get(`${method} ${path}`) === own).length / of.length
    const [byWords, byPreset] = [await classes(), await classes('--preset', name)]
    const plain = table.filter((entry) => entry.class === 'read' || entry.class === 'write')
    console.log(`${name}: ${(100 * shareIn(byWords, plain)).toFixed(1)} % of ${plain.length} by words alone`)
    expect(shareIn(byPreset, table)).toBe(1)
    expect(shareIn(byWords, plain)).toBeGreaterThanOrEqual(0.95)
  })

  it.each([
    ['no YAML', '{', /is neither YAML nor JSON: /],
    ['no document', 'just words', /is no OpenAPI document: it has no "paths"/],
    ['a list of paths', 'paths: [a]', /is no OpenAPI document/],
    ['no operations', 'paths: {"/a": {parameters: []}}', /has no operations below "paths"/],
  ])('refuses a file with %s, and says so', async (_, text, message) => {
    const { code, stderr } = await proposed(text)
    expect(code).toBe(1)
    expect(stderr).toMatch(message)
  })

  it('writes routes that a configuration can have, whatever the document is like', async () => {
    const { stdout, routes } = await proposed(`
openapi: 3.1.0
servers: [{ url: 'https://api.example/v2/' }, { url: 'https://other.example' }]
x-common: &common { get: { operationId: getIt } }
paths:
  /aliased: *common
  /merged: { <<: *common, post: { operationId: createIt } }
  /referred: { $ref: '#/components/pathItems/Some~1thing', summary: here }
  /again: { $ref: '#/paths/~1merged' }
  /itself: { $ref: '#/paths/~1itself' }
  /nothing: null
  /files/{path+}: { get: {} }
  /objects/{key:.*}: { get: {} }
  /by/{id:[0-9]+}/name: { get: {} }
  /odd/{a}.{b}({c}): { get: {} }
  /jobs?action=start: { post: {} }
  /jobs: { post: {}, get: {}, head: {} }
  /heads: { head: {} }
  /a/*/b: { get: {} }
components:
  pathItems:
    Some/thing: { post: { operationId: searchThings, parameters: [{ $ref: '#/components/parameters/q' }] } }
`)
    expect(routes.map((route) => Object.values(route).slice(0, 3).join(' '))).toEqual([
      'GET /aliased read',
      'GET /merged read',
      'POST /merged write',
      'POST /referred read',
      'GET /again read',
      'POST /again write',
      'GET /files/* read',
      'GET /objects/* read',
      'GET /by/{id}/name read',
      'GET /odd/{a}.{b}({c}) read',
      'POST /jobs write',
      'GET /jobs read',
      'GET /heads read',
    ])
    const notes = stdout.split('\n').filter((line) => line.startsWith('#'))
    expect(notes).toEqual([
      expect.stringContaining('with paths below its base URL, https://api.example/v2.'),
      '# Left out, because it stands in another place: /itself',
      '# Left out, because it says nothing: /nothing',
      '# Once more POST /jobs: routes do not tell queries apart',
      '# Left out, because no route can have such a path: "/a/*/b"',
    ])
    const cwd = newFolder()
    const upstream = { url: 'https://api.example/v2', limits: { read: [], write: [] }, routes }
    const account = { credential: { value: 'not-a-secret' } }
    writeFileSync(
      join(cwd, 'sluice.yaml'),
      stringify({ upstreams: { it: { ...upstream, accounts: { main: account } } } }),
    )
    expect(await runCommand(['check'], { cwd })).toMatchObject({ code: 0 })
  })

  it.each([
    ['a base path', { swagger: '2.0', basePath: '/api/v4', paths: { '/projects/{id}': { get: {} } } }],
    [
      'a server below the host',
      { servers: [{ url: 'https://x.example/api' }], paths: { '/v4/projects/{id}': { get: {} } } },
    ],
    ['whole paths', { paths: { '/api/v4/projects/{id}': { get: {} } } }],
  ])('proposes paths below the URL of the preset for a document with %s', async (_, document) => {
    const { routes, stdout } = await proposed(document, '--preset', 'gitlab')
    expect(routes).toEqual([{ method: 'GET', path: '/projects/{id}', class: 'one' }])
    expect(stdout).toContain('# known to the preset')
  })

  it('says which paths it left out', async () => {
    const { stdout } = await proposed({ paths: { '/a': { get: {} }, '/b': { $ref: './b.yaml' }, c: { get: {} } } })
    expect(stdout).toContain('# Left out, because it stands in another place: /b')
    expect(stdout).toContain('# Left out, because no route can have such a path: "c"')
    expect((await runCommand(['routes', 'not-there.yaml'])).stderr).toBe("can't read not-there.yaml (ENOENT)\n")
  })
})
