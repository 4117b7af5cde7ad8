import { describe, expect, it } from 'vitest'
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

  it('cuts the longest names in their middle to fit its width, none to less than six characters', () => {
    const lines = [['eu-production-main', 'a-long-name', '12345678']]
    expect(columnsOf(lines, { width: 30, cuttable: 2 })).toEqual(['eu-p…main  a-lo…name  12345678'])
    expect(columnsOf(lines, { width: 1, cuttable: 2 })).toEqual(['eu-…in  a-l…me  12345678'])
  })
})
