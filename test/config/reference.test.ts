import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { referenceOf } from './reference.ts'
import { reference, REFERENCE } from './write-reference.ts'

it('the configuration reference says what the schema says; `node test/config/write-reference.ts` writes it', async () => {
  expect(readFileSync(REFERENCE, 'utf8')).toBe(await reference())
})

it('the configuration reference has no heading twice: alternatives are told apart by a field of their own', () => {
  const headings = [...readFileSync(REFERENCE, 'utf8').matchAll(/^## .*$/gm)].map(([heading]) => heading)
  expect(headings.filter((heading, i) => headings.indexOf(heading) !== i)).toEqual([])
  const [limit, bytes] = ['limit', 'bytes'].map((name) => ({ type: 'object', properties: { [name]: {}, most: {} } }))
  const text = referenceOf({ properties: { cost: { anyOf: [limit!, bytes!] } } })
  expect(text).toMatch(/^## `cost`, with `limit`$[^]*^## `cost`, with `bytes`$/m)
})

it('the configuration reference says something of each field', () => {
  const silent = [...readFileSync(REFERENCE, 'utf8').matchAll(/^\| `.*\| +(?:Required\. +)?\|$/gm)].map(([row]) => row)
  expect(silent).toEqual([])
})

it('the configuration reference has each field of each object, where it is first described', () => {
  const tls = { type: 'object', properties: { key: { type: 'string', description: 'A key | or none.' } } }
  const port = {
    anyOf: [
      { type: 'integer', minimum: 0, default: 80 },
      { type: 'string', pattern: String.raw`^\$\{[^}]+\}$` },
    ],
  }
  const text = referenceOf({
    properties: { server: { type: 'object', required: ['port'], properties: { port, tls } }, tls },
  })
  expect(text).toContain('| `port` | number from 0 | `80` | Required. |')
  expect(text).toContain('| `key` | text |  | A key \\| or none. |')
  expect(text).toContain('## `tls`\n\nThe fields of `server.tls`.')
})
