import { describe, expect, it } from 'vitest'
import { jsonOf } from '../../src/cli/printable.ts'
import { columnsOf } from '../../src/cli/table.ts'

describe('a table', () => {
  it('has any number of lines', () => {
    const lines = Array.from({ length: 200_000 }, (_, i) => ['2027-01-31', `client-${i}`])
    const texts = columnsOf(lines, { width: Infinity })
    expect([texts.length, texts[0], texts.at(-1)]).toEqual([
      200_000,
      '2027-01-31  client-0',
      '2027-01-31  client-199999',
    ])
  })

  it('prints nothing that a terminal would obey, and no row of its own for a cell', () => {
    expect(columnsOf([['a\n\u009b2Jb', '\u001b[2J']], { width: Infinity })).toEqual(['a\uFFFD\uFFFD2Jb  \uFFFD[2J'])
  })

  const lines = [
    ['DAY', 'ACCOUNT', 'CLASS', 'UNITS', 'BURN'],
    ['2027-01-31', 'eu-production-main', 'a-long-name', '12345678', '0.5'],
  ]
  const names = { cuttable: ['ACCOUNT', 'CLASS'] }

  it('cuts the longest names in their middle to fit its width, and no number, day or title', () => {
    expect(columnsOf(lines, { ...names, width: 48 })).toEqual([
      'DAY         ACCOUNT    CLASS      UNITS     BURN',
      '2027-01-31  eu-p…main  a-lo…name  12345678  0.5',
    ])
    const least = columnsOf(lines, { ...names, width: 43 })
    expect(least[0]).toBe('DAY         ACCOUNT  CLASS   UNITS     BURN')
  })

  it('leaves out what it can do without rather than be too wide', () => {
    expect(columnsOf(lines, { ...names, width: 37, spare: ['NONE', 'BURN', 'UNITS'] })).toEqual([
      'DAY         ACCOUNT  CLASS   UNITS',
      '2027-01-31  eu-…ain  a-l…me  12345678',
    ])
  })

  it('cuts no names where it is too wide even so', () => {
    expect(columnsOf(lines, { ...names, width: 30 })[1]).toBe(
      '2027-01-31  eu-production-main  a-long-name  12345678  0.5',
    )
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
