import { describe, expect, it } from 'vitest'
import { jsonOf } from '../../src/cli/printable.ts'
import { columnsOf } from '../../src/cli/table.ts'

describe('a table', () => {
  it('has any number of lines', () => {
    const lines = Array.from({ length: 200_000 }, (_, i) => ['2027-01-31', `client-${i}`])
    const texts = columnsOf(lines, { width: Infinity, cuttable: 2 })
    expect([texts.length, texts[0], texts.at(-1)]).toEqual([
      200_000,
      '2027-01-31  client-0',
      '2027-01-31  client-199999',
    ])
  })

  it('prints nothing that a terminal would obey, and no row of its own for a cell', () => {
    expect(columnsOf([['a\n\u009b2Jb', '\u001b[2J']], { width: Infinity, cuttable: 1 })).toEqual([
      'a\uFFFD\uFFFD2Jb  \uFFFD[2J',
    ])
  })

  it('cuts the longest names in their middle to fit its width, none to less than six characters', () => {
    const lines = [['eu-production-main', 'a-long-name', '12345678']]
    expect(columnsOf(lines, { width: 30, cuttable: 2 })).toEqual(['eu-p…main  a-lo…name  12345678'])
    expect(columnsOf(lines, { width: 1, cuttable: 2 })).toEqual(['eu-…in  a-l…me  12345678'])
  })
})

it('JSON says the same without a control character, which a terminal would obey', () => {
  const value = { text: 'a\u009b2J\u001b[2J\u007f\n' }
  const json = jsonOf(value)
  expect(json).toBe(
    String.raw`{
  "text": "a\u009b2J\u001b[2J\u007f\n"
}` + '\n',
  )
  expect(JSON.parse(json)).toEqual(value)
})
