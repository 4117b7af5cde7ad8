import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { configOf } from '../../src/config/find.ts'
import { parseConfig } from '../../src/config/load.ts'
import { allWarnings, textWarnings } from '../../src/config/warnings.ts'
import { readYaml } from '../../src/config/yaml.ts'
import { newFolder } from '../support/gateway.ts'
import { loadConfigFile, problemsIn } from '../support/load-config.ts'

const ENV = { KEY: 'one', OTHER: 'two' }

/** Behind which more of a file stands, over which a parser stumbles that has lost its place. */
const REST = `
  more:
    url: https://more.example
    accounts: { main: { credential: { header: authorization, value: "Bearer \${env:OTHER}" } } }
    queue: { maxWait: 5s, maxWaiting: 100 }
`

function fileWith(value: string): string {
  return `upstreams:
  tri:
    url: https://tri.example
    accounts: { main: { credential: { header: authorization, value: ${value} } } }${REST}`
}

/** In a block, where almost any text may stand without quotes. */
function blockWith(value: string): string {
  return `upstreams:
  tri:
    url: https://tri.example
    accounts:
      main:
        credential:
          header: authorization
          value: ${value}${REST}`
}

const problemsOf = (text: string): string[] => problemsIn(text, ENV, 'f')

function warningsIn(text: string): string[] {
  return allWarnings({ config: parseConfig(text, { env: ENV }), ofText: textWarnings(readYaml(text)) })
}

describe('a reference without quotes between brackets', () => {
  it.each([
    ['${env:KEY}', 69],
    ['Bearer ${env:KEY}', 76],
    ['${env:KEY}${env:OTHER}', 69],
    ['${file:/run/secrets/key}', 69],
    ['${secret:tri/main}', 69],
    ['$${literal}', 70],
  ])('is one problem with its place and remedy: %s', (value, column) => {
    expect(problemsOf(fileWith(value))).toEqual([
      `f:4:${column}: between { } or [ ] a text with \${ in it needs quotes: write "\${env:NAME}"`,
    ])
  })

  it('is told of every place in one run, and so is a key that is given twice', () => {
    const text = `${fileWith('${env:KEY}')}clients:
  a: { keys: [ \${env:KEY}, \${env:OTHER} ] }
  a: {}
`
    expect(problemsOf(text).map((problem) => problem.split(': ').slice(0, 2).join())).toEqual([
      'f:4:69,between { } or [ ] a text with ${ in it needs quotes',
      'f:10:16,between { } or [ ] a text with ${ in it needs quotes',
      'f:10:28,between { } or [ ] a text with ${ in it needs quotes',
      'f:11:3,clients.a',
    ])
  })

  it('needs none in a block', () => {
    expect(problemsOf(blockWith('Bearer ${env:KEY}'))).toEqual([])
  })
})

it('names a key that is given twice with both lines, wherever it stands', () => {
  const text = `${fileWith('"${env:KEY}"')}  tri:
    url: https://other.example
    accounts: { main: {}, main: {} }
`
  expect(problemsOf(text)).toEqual([
    'f:9:3: upstreams.tri: the key "tri" is given twice, first in line 2: keep one of them',
    'f:11:27: upstreams.tri.accounts.main: the key "main" is given twice, first in line 11: keep one of them',
  ])
})

it.each(['__proto__', 'constructor', 'prototype'])('refuses %s as a key, wherever it stands', (name) => {
  const problem = (place: string) =>
    `f:9:${place}.${name}: "${name}" is no valid name: it means something else in JavaScript`
  for (const [rest, place] of [
    [`webhooks: { a: { url: "https://h", headers: { ${name}: x } } }`, '47: webhooks.a.headers'],
    [`clients: { a: { tokens: [{ issuer: x, claims: { ${name}: x } }] } }`, '49: clients.a.tokens[0].claims'],
    [`server: { ${name}: x }`, '11: server'],
  ] as const)
    expect(problemsOf(`${fileWith('"${env:KEY}"')}${rest}`)).toEqual([problem(place)])
})

describe('a mistake in YAML', () => {
  it.each([
    ['a tab', fileWith('x').replace('    url', '\turl'), 'f:3:1: a tab can not indent: use spaces'],
    [
      'wrong indentation',
      fileWith('x').replace('    queue', '   queue'),
      'f:8:1: All mapping items must start at the same',
    ],
    ['a second document', `${fileWith('x')}---\na: 1\n`, 'f:9:1: a second document begins here'],
    ['an "@"', fileWith('@topsecret'), 'f:4:69: a text that begins with this character needs quotes'],
    ['a "%"', blockWith('%topsecret'), 'f:8:18: a text that begins with this character'],
    [
      'a colon',
      blockWith('Bearer: topsecret'),
      'f:8:18: Nested mappings are not allowed in compact mappings: write "k',
    ],
    ['no closing quote', blockWith('"topsecret'), 'f:8:28: a text in quotes is not closed: its last quote is missing'],
    ['no closing single quote', blockWith("'topsecret"), 'f:13:1: a text in quotes is not closed: its last quote'],
    ['lists in lists without end', `a: ${'['.repeat(20_000)}`, 'lists or mappings are nested too deeply here'],
    [
      'a byte order mark before a mapping',
      '\uFEFF{ upstreams: { tri: 5 } }',
      'f:1:21: upstreams.tri: must be a mapping',
    ],
    ['a text behind a quote', blockWith('"x"topsecret'), 'f:8:21: Unexpected scalar at node end: a bracket or quote'],
    ['an escape', blockWith('"C:\\Users\\topsecret"'), 'f:8:21: there is no such escape in a text in double quotes'],
    ['a tag', blockWith('!env topsecret'), 'f:8:18: tags mean nothing here: write "${env:NAME}"'],
    ['an alias', blockWith('*topsecret'), 'f:8:18: there is no anchor of this name before it; put quotes'],
    [
      'an alias of what it is in',
      blockWith('x').replace('main:', 'main: &m').replace(': x', ': *m'),
      'f:8:18: this alias stands for what it is a part of',
    ],
    ['a bracket that a comment hides', fileWith('a #topsecret'), 'Flow map in block collection must be sufficiently'],
    ['a template', blockWith('{{ topsecret }}'), 'f:8:19: a mapping or a list is no key: put quotes around'],
    ['a merge key', fileWith('x').replace('    queue:', '    <<:'), 'f:8:5: YAML 1.2 has no merge key "<<"'],
    ['a missing space', fileWith('x').replace('url: https://tri.example', 'url:x'), 'write "key: value"'],
    ['a comment for a text', blockWith('#topsecret'), 'value: must be a text; nothing stands here'],
    ['a number for a text', blockWith('0123'), 'f:8:18: upstreams.tri.accounts.main.credential.value: must be a'],
  ])('is one problem: %s', (_, text, expected) => {
    const problems = problemsOf(text)
    expect(problems).toHaveLength(1)
    expect(problems[0]).toContain(expected)
    expect(problems[0]).not.toContain('secret')
  })

  it.each([
    ['UTF-16', Buffer.from(`\ufeff${fileWith('x')}`, 'utf16le')],
    ['Latin-1', Buffer.from(fileWith('ä'), 'latin1')],
  ])('may be its encoding: %s', (_, bytes) => {
    const file = join(newFolder(), 'f')
    writeFileSync(file, bytes)
    expect(() => loadConfigFile(file)).toThrow(`${file}: is not in UTF-8: save it in this encoding`)
  })

  it.each([
    ['a byte order mark', `\ufeff${fileWith('x')}    nope: 1\n`],
    ['line ends of Windows', `${fileWith('x')}    nope: 1\n`.replaceAll('\n', '\r\n')],
  ])('is found in its line after %s', (_, text) => {
    expect(problemsOf(text)).toEqual(['f:9:5: upstreams.more.nope: unknown key "nope"'])
  })
})

describe('a text that means something else than it seems to', () => {
  const VALUE = 'line 8: upstreams.tri.accounts.main.credential.value '

  it.each([
    ['$TOPSECRET', 'is taken literally, "$" and all: write ${env:NAME}'],
    ['"Bearer $TOPSECRET"', 'is taken literally'],
    ['$topsecret', 'is taken literally'],
    ['$(TOPSECRET)', 'is taken literally'],
    ['topsecret #def', 'ends before " #", which begins a comment'],
    ['Bearer ${env:KEY} #def', 'ends before " #", which begins a comment'],
    ['&topsecret def', 'begins with an anchor that no alias uses'],
  ])('is warned of, without being shown: %s', (value, expected) => {
    const warnings = warningsIn(blockWith(value))
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toContain(VALUE + expected)
    expect(warnings[0]).not.toMatch(/topsecret/i)
  })

  it('is warned of where a number looks octal', () => {
    const text = fileWith('x').replace('maxWaiting: 100', 'maxWaiting: 0100')
    expect(warningsIn(text)).toEqual(['line 8: upstreams.more.queue.maxWaiting is read as the decimal number 100'])
  })

  it.each(['${env:KEY} # of the vault', '"abc #def"', 'abc#def', 'pa$$word', 'abc$DEF', '"${env:KEY}"', '"$5"', 'x #'])(
    'is not warned of where it means what it says: %s',
    (value) => {
      expect(warningsIn(blockWith(value))).toEqual([])
    },
  )

  it('is no part of a path, nor an anchor that is used', () => {
    const text = fileWith('&key h').replace(
      '    queue: { maxWait: 5s',
      '    limits: { read: [] }\n    routes: [{ path: /v1/$metadata, class: read }]\n    hosts: [*key]\n    queue: { maxWait: 5s',
    )
    expect(warningsIn(text)).toEqual([])
  })
})

describe('a secret of the store in a file with another mistake', () => {
  const text = `${blockWith('"${secret:tri/main}"')}    nope: 1\n`

  it('is no problem before it', async () => {
    const error = await configOf('f', text, { env: ENV }).catch((error: unknown) => error)
    expect((error as Error).message).toBe('f:13:5: upstreams.more.nope: unknown key "nope"')
  })

  it('is none either where the store itself refers to one, which is the mistake', async () => {
    const store = 'store: { kind: redis, url: "${secret:redis}" }\n'
    const error = await configOf('f', store + text.replace('    nope: 1\n', ''), { env: ENV }).catch((e: unknown) => e)
    expect((error as Error).message).toBe(
      'f:1:28: store.url: says where secrets are looked up, so it can not be looked up there itself: use ${env:NAME} or ${file:/path}',
    )
  })
})
