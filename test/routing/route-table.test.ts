import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { normalizePath } from '../../src/routing/path.ts'
import { classifyByMethod, type Guess } from '../../src/routing/route.ts'
import { parseRouteFile, segmentsNamed } from '../../src/routing/route-file.ts'
import { RouteTable } from '../../src/routing/route-table.ts'

function tableOf(
  ...layers: { methods?: string[]; path: string; class: string }[][]
): (method: string, path: string) => string {
  const table = new RouteTable({
    layers: layers.map((layer) => layer.map(({ class: name, ...entry }) => ({ ...entry, rule: { class: name } }))),
    classify: classifyByMethod,
  })
  return (method, path) => table.find(method, normalizePath(path, '')).class
}

describe('a route table', () => {
  it('lets the most specific path win, whatever the order', () => {
    const find = tableOf([
      { path: '/*', class: 'rest' },
      { path: '/a/{id}', class: 'one' },
      { path: '/a/new', class: 'new' },
      { path: '/a/{id}/*', class: 'below' },
    ])
    expect(['/x', '/a/7', '/a/new', '/a/7/b/c', '/'].map((path) => find('GET', path))).toEqual([
      'rest',
      'one',
      'new',
      'below',
      'rest',
    ])
  })

  it('prefers the route that names the method, on the same path', () => {
    const find = tableOf([
      { path: '/*', class: 'write' },
      { methods: ['GET', 'HEAD'], path: '/*', class: 'read' },
      { methods: ['POST'], path: '/search', class: 'search' },
    ])
    expect(find('GET', '/x')).toBe('read')
    expect(find('HEAD', '/x')).toBe('read')
    expect(find('POST', '/search')).toBe('search')
    expect(find('POST', '/x')).toBe('write')
    expect(find('LOCK', '/x')).toBe('write')
  })

  it('lets an earlier layer win on the same path, and only there', () => {
    const find = tableOf(
      [{ path: '/a/{x}', class: 'mine' }],
      [
        { methods: ['GET'], path: '/a/{y}', class: 'preset' },
        { methods: ['GET'], path: '/b', class: 'preset' },
      ],
    )
    expect(find('GET', '/a/1')).toBe('mine')
    expect(find('GET', '/b')).toBe('preset')
  })

  it('classifies by method what no route takes', () => {
    const find = tableOf([{ methods: ['POST'], path: '/a', class: 'special' }])
    expect(['GET', 'HEAD', 'OPTIONS', 'PROPFIND'].map((method) => find(method, '/a'))).toEqual(Array(4).fill('read'))
    expect(['PUT', 'PATCH', 'DELETE', 'LOCK'].map((method) => find(method, '/a'))).toEqual(Array(4).fill('write'))
  })

  it('looks at a normal form: slashes, dots, parameters and percent-encodings make no difference', () => {
    const find = tableOf([{ path: '/a/b', class: 'found' }])
    for (const path of ['//a/b', '/a//b', '/a/b/', '/a/./b', '/a/%62', '/%61/b/.', '/a;x=y/b', '/a/b;x=y'])
      expect(find('GET', path), path).toBe('found')
    for (const path of ['/a%2Fb', '/A/b', '/a/b/c', '/a/b%3Bx=y']) expect(find('GET', path), path).toBe('read')
  })

  it('takes a name for a part of its segment where something stands around it', () => {
    const find = tableOf(
      ['/v1/{x}:stop', '/v1/{x}', '/v1/{x}.json', '/v1/v{x}', '/a/{x}-{y}', '/b/{x}(x', '/b/{x}+{y}/c', '/c/{x}$'].map(
        (path) => ({ path, class: path }),
      ),
    )
    const urls = {
      '/v1/7:stop': '/v1/{x}:stop',
      '/v1/7:start': '/v1/{x}',
      '/v1/7': '/v1/{x}',
      '/v1/7.json': '/v1/{x}.json',
      '/v1/v7': '/v1/v{x}',
      '/a/7-8': '/a/{x}-{y}',
      '/a/7': 'read',
      '/b/7(x': '/b/{x}(x',
      '/b/7': 'read',
      '/b/7+8/c': '/b/{x}+{y}/c',
      '/c/7$': '/c/{x}$',
      '/c/7': 'read',
    }
    expect(Object.fromEntries(Object.keys(urls).map((url) => [url, find('GET', url)]))).toEqual(urls)
  })

  it.each([
    ['/admin%2Fx', '/admin/*', '/admin/x', '/admin%2Fx', 'read'],
    [
      '/projects/group%2Fname/issues',
      '/projects/{id}/issues',
      '/projects/group%2Fname/issues',
      '/projects/group/name/issues',
      'read',
    ],
    [
      '/projects/admin%2Fissues',
      '/projects/admin/*',
      '/projects/admin/issues',
      '/projects/admin%2Fissues',
      '/projects/{id}',
    ],
    ['/other%2Fx', 'read', '/other/x', '/other%2Fx', undefined],
    ['/admin%20x', 'read', '/admin x', '/admin%20x', undefined],
    ['/projects/a+b', '/projects/{id}', '/projects/a+b', undefined, undefined],
  ])(
    'reads the escaped slash of %s as the more specific line does',
    (path, className, foundBy, otherPath, otherClass) => {
      const paths = ['/admin/*', '/projects/{id}', '/projects/{id}/issues', '/projects/admin/*']
      const layer = paths.map((text) => ({ path: text, rule: { class: text } }))
      const located = new RouteTable({ layers: [layer], classify: classifyByMethod }).locate('GET', path, '')
      expect({ ...located, route: located.route.class }).toEqual({
        route: className,
        path: foundBy,
        otherPath,
        otherClass,
      })
    },
  )

  it('takes paths for one that differ in empty segments only', () => {
    const find = tableOf([
      { path: '/a//b', class: 'first' },
      { path: '/a/b/', class: 'second' },
      { path: '//', class: 'root' },
    ])
    expect(find('GET', '/a/b')).toBe('first')
    expect(find('GET', '/')).toBe('root')
  })

  it('finds the same again, and keeps what it remembers bounded', () => {
    const find = tableOf([{ path: '/a/{id}', class: 'one' }])
    for (let i = 0; i < 20_000; i++) expect(find('GET', `/a/${i}`)).toBe('one')
    expect(find('GET', `/a/${'x'.repeat(60_000)}`)).toBe('one')
  })

  it('takes the route of the method where entries of several methods have paths of the same shape', () => {
    const find = tableOf([
      { methods: ['POST'], path: '/a/{id}', class: 'post' },
      { methods: ['GET'], path: '/a/{name}', class: 'get' },
      { methods: ['PUT'], path: '/a/new', class: 'put new' },
      { methods: ['DELETE'], path: '/a/n*', class: 'delete n' },
      { methods: ['GET'], path: '/a/n*', class: 'get n' },
      { path: '/a/*', class: 'any' },
    ])
    expect(['POST', 'GET', 'PUT', 'DELETE', 'LOCK'].map((method) => find(method, '/a/new'))).toEqual([
      'post',
      'get n',
      'put new',
      'delete n',
      'any',
    ])
    expect(['POST', 'GET', 'PUT'].map((method) => find(method, '/a/7'))).toEqual(['post', 'get', 'any'])
  })

  it('needs memory by the entry, and not by the entry and method', () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const heap = (): number => {
      collect()
      return process.memoryUsage().heapUsed
    }
    const entries = Array.from({ length: 5_000 }, (_, i) => ({ path: `/r${i}/{id}`, class: 'read' }))
    const before = heap()
    const find = tableOf(entries)
    const bytes = (heap() - before) / entries.length
    expect(find('GET', '/r4999/7')).toBe('read')
    expect(bytes).toBeLessThan(3_000)
  })

  it('forgets nothing for a path that is too long to be remembered', () => {
    let asked = 0
    const classify = (method: string): Guess => {
      asked++
      return classifyByMethod(method)
    }
    const table = new RouteTable({ layers: [], classify })
    for (let i = 0; i < 4_096; i++) table.find('GET', `/a/${i}`)
    table.find('GET', `/a/${'x'.repeat(60_000)}`)
    asked = 0
    for (let i = 0; i < 4_096; i++) table.find('GET', `/a/${i}`)
    expect(asked).toBe(0)
  })
})

describe('a route file', () => {
  it('gives a path’s methods their classes, charges and marks', () => {
    const [first, second] = parseRouteFile('# a comment\n/a/{b} GET:read+ POST:template+write-\n', (rule) => rule)
    expect(first).toEqual({
      methods: ['GET'],
      path: '/a/{b}',
      rule: { class: 'read', charges: ['read'], retry: 'safe' },
    })
    expect(second).toMatchObject({ methods: ['POST'], rule: { charges: ['template', 'write'], retry: 'unsafe' } })
    expect(() => parseRouteFile('/a GET', (rule) => rule)).toThrow('can\'t read "GET" of /a')
  })

  it('counts methods together that are joined by commas, and knows what a call costs', () => {
    expect(parseRouteFile('/a GET,POST:tier2=51', (rule) => rule)).toEqual([
      { methods: ['GET', 'POST'], path: '/a', rule: { class: 'tier2', charges: ['tier2'], cost: 51 } },
    ])
  })

  it('numbers the segments that hold a secret', () => {
    expect(segmentsNamed('/a/{b}/c/v{d}', ['b', 'd'])).toEqual([1, 3])
  })
})
