import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { BodyNumbers } from '../../src/answers/body-numbers.ts'
import { pointerOf } from '../../src/answers/pointer.ts'
import type { Fields } from '../../src/http/fields.ts'

const JSON_TYPE: Fields = { 'content-type': 'application/json' }
const EVENTS: Fields = { 'content-type': 'text/event-stream; charset=utf-8' }

/** What is found at the pointers in a body that comes in pieces of so many bytes. */
async function found(body: string | Buffer, pointers: string[], fields = JSON_TYPE, bytes = 7) {
  const look = new BodyNumbers(pointers.map(pointerOf), fields)
  const all = Buffer.from(body)
  for (let at = 0; at < all.length; at += bytes) look.piece(all.subarray(at, at + bytes))
  return look.end()
}

const USAGE = JSON.stringify({
  id: 'x "}],{ \\ é',
  usage: { prompt: 12, output: 34, details: { cached: 5, list: [1, [2, 3], { deep: 4 }] } },
  output: 99,
  'a/b': { '~': 7, é: 8 },
  cost: '0.0025',
})

describe('numbers in a body', () => {
  it.each<[string, number | undefined]>([
    ['/usage/prompt', 12],
    ['/usage/output', 34],
    ['/output', 99],
    ['/usage/details/cached', 5],
    ['/usage/details/list/0', 1],
    ['/usage/details/list/1/1', 3],
    ['/usage/details/list/2/deep', 4],
    ['/a~1b/~0', 7],
    ['/a~1b/é', 8],
    ['/cost', 0.0025],
    ['/usage', undefined],
    ['/id', undefined],
    ['/usage/nothing', undefined],
    ['/usage/details/list/3', undefined],
  ])('are found at %s, in pieces of any size', async (pointer, value) => {
    for (const bytes of [1, 7, 10_000]) expect(await found(USAGE, [pointer], JSON_TYPE, bytes)).toEqual([value])
  })

  it('are what JSON.parse finds, in random documents', async () => {
    let seed = 1
    const random = () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647
    const any = (depth: number): unknown => {
      const kind = Math.floor(random() * (depth > 3 ? 4 : 6))
      if (kind === 0) return Math.floor(random() * 1e6) / 10
      if (kind === 1) return ['a"b', '\\', '{"a":1}', '', ',:[]'][Math.floor(random() * 5)]
      if (kind === 2) return [true, false, null][Math.floor(random() * 3)]
      if (kind === 3) return -Math.floor(random() * 100)
      const members = Array.from({ length: Math.floor(random() * 4) }, () => any(depth + 1))
      return kind === 4 ? members : Object.fromEntries(members.map((one, i) => [['a', 'b', '"', 'c'][i]!, one]))
    }
    for (let n = 0; n < 300; n++) {
      const value = { a: any(0), b: [any(1)] }
      const pointers = ['/a', '/a/a', '/a/b', '/a/0', '/b/0', '/a/"/a', '/a/1/0', '/b/0/a']
      const wanted = pointers.map((pointer) => {
        let at: unknown = value
        for (const name of pointerOf(pointer)) at = (at as Record<string, unknown> | undefined | null)?.[name]
        return typeof at === 'number' ? at + 0 : undefined
      })
      const text = JSON.stringify(value, undefined, n % 3)
      expect(await found(text, pointers, JSON_TYPE, 1 + (n % 9)), text).toEqual(wanted)
    }
  })

  it.each([
    ['gzip', gzipSync],
    ['x-gzip', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
    ['zstd', zstdCompressSync],
    ['gzip, br', (body: string) => brotliCompressSync(gzipSync(body))],
    ['identity, gzip', gzipSync],
    ['gzip, gzip', (body: string) => gzipSync(gzipSync(body))],
  ])('are found in %s', async (coding, pack) => {
    const fields = { ...JSON_TYPE, 'content-encoding': coding }
    expect(await found(pack(USAGE), ['/usage/prompt'], fields)).toEqual([12])
    expect(await found(pack(USAGE).subarray(0, -9), ['/usage/output', '/no'], fields)).toHaveLength(2)
    expect(await found('no such coding', ['/usage/prompt'], fields)).toEqual([undefined])
  })

  it.each(['utf-8', 'none', 'identity', '', 'gzip', 'zstd', 'x-own'])(
    'are found in a body that is not packed, whatever it says: %s',
    async (coding) => {
      expect(await found(USAGE, ['/output'], { ...JSON_TYPE, 'content-encoding': coding })).toEqual([99])
    },
  )

  it('count where what follows them can not be unpacked', async () => {
    const fields = { ...JSON_TYPE, 'content-encoding': 'gzip' }
    const packed = gzipSync(USAGE)
    // Without the end that gzip has; with bytes behind it; and with a break in the middle of a long body.
    expect(await found(packed.subarray(0, -8), ['/usage/prompt'], fields)).toEqual([12])
    expect(await found(Buffer.concat([packed, Buffer.from('xx')]), ['/usage/prompt'], fields, packed.length)).toEqual([
      12,
    ])
    const long = gzipSync(
      `{"usage":{"prompt":12},"rest":[${Array.from({ length: 20_000 }, (_, i) => (i * 7_919) % 10_007).join()}]}`,
    )
    long.fill(0xff, long.length - 100)
    expect(await found(long, ['/usage/prompt'], fields, 1_000)).toEqual([12])
    for (const [coding, pack] of [
      ['br', brotliCompressSync],
      ['zstd', zstdCompressSync],
    ] as const) {
      const behind = Buffer.concat([pack(USAGE), Buffer.from('xx')])
      expect(await found(behind, ['/usage/prompt'], { ...JSON_TYPE, 'content-encoding': coding }, 1_000)).toEqual([12])
    }
  })

  it('are found behind a byte order mark', async () => {
    expect(await found(`\uFEFF${USAGE}`, ['/output'])).toEqual([99])
    expect(await found('\uFEFF[7]', ['/0'])).toEqual([7])
    expect(await found('\uFEFFdata: {"a":1}\n\n', ['/a'], EVENTS, 1)).toEqual([1])
    expect(await found('\uFEFF: hello\ndata: {"a":1}\n\n', ['/a'], EVENTS)).toEqual([1])
    expect(await found('data: {"a":1}\n\n\uFEFFdata: {"a":2}\n\n', ['/a'], EVENTS)).toEqual([1])
  })

  it('are those of the last event that has them', async () => {
    const stream = [
      ': comment {"usage":{"in":1}}',
      'event: message_start\r\ndata: {"message":{"usage":{"in":25,"out":1}}}\r\n\r',
      'data:{"delta":"half a {\\"usage\\":"}\n',
      'data: not json {[\n',
      'data: {"usage":{"out":7}}\n',
      'id: 3\ndata: {"usage":{"out":15}}\n',
      'data: {"usage":null}\n',
      'data: [DONE]\n\n',
    ].join('\n')
    for (const bytes of [1, 5, 10_000])
      expect(await found(stream, ['/message/usage/in', '/usage/out', '/usage/in'], EVENTS, bytes)).toEqual([
        25,
        15,
        undefined,
      ])
  })

  it('are those of the last line that has them, in lines of JSON', async () => {
    const lines = '{"count":1}\n{"count":2,"done":false}\n{"done":true,"total":9}\n'
    expect(await found(lines, ['/count', '/total'], { 'content-type': 'application/x-ndjson' })).toEqual([2, 9])
  })

  it('are found behind megabytes of text, of which nothing is kept', async () => {
    const body = `{"embedding":[${'0.125,'.repeat(500_000)}1],"text":"${'x'.repeat(3_000_000)}","usage":{"total":42}}`
    expect(await found(body, ['/usage/total'], JSON_TYPE, 65_536)).toEqual([42])
    expect(await found(`${'['.repeat(100_000)}1`, ['/0'], JSON_TYPE, 65_536)).toEqual([undefined])
  })
})
