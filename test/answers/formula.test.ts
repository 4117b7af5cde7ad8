import { describe, expect, it } from 'vitest'
import { fractionOf, roundedUp, times } from '../../src/schema/fraction.ts'
import { FormulaError, parseFormula } from '../../src/answers/formula.ts'

describe('a formula', () => {
  it.each<[string, number]>([
    ['input + 4 * output', 12],
    ['(input + 4) * output', 16],
    ['input - output - 1', 1],
    ['12 / input / 3', 1],
    ['-input + 10', 6],
    ['2 * -output', -4],
    ['0.25*input+.5', 1.5],
    ['  input  ', 4],
    ['max(output, input / 2, 1) * min(input, 3)', 6],
    ['max(-input, -output / -1, 2 / -1)', 2],
  ])('%s is %d where input is 4 and output is 2', (text, result) => {
    const { over, under } = parseFormula(text, ['input', 'output'])({ input: fractionOf(4), output: fractionOf(2) })
    expect(Number(over) / Number(under)).toBe(result)
  })

  it('has no result where it divides by 0', () => {
    const values = { input: fractionOf(4), output: fractionOf(2) }
    expect(roundedUp(parseFormula('1 / (output - 2)', ['input', 'output'])(values))).toBeUndefined()
    expect(roundedUp(parseFormula('input + 0 / (output - 2)', ['input', 'output'])(values))).toBeUndefined()
  })

  it.each<[number | string, number, bigint]>([
    [0.1, 30, 3n],
    ['0.15', 1_000_000, 150_000n],
    [1e-7, 1, 1n],
    [2.5e21, 1, 2_500_000_000_000_000_000_000n],
    ['-0.5', 3, -1n],
    ['.5', 1, 1n],
    [0, 5, 0n],
  ])('%s, which is read exactly, times %d is rounded up to %d', (text, factor, result) => {
    expect(roundedUp(times(fractionOf(text), fractionOf(factor)))).toBe(result)
  })

  it.each([
    ['', 'character 1: a number, a name or "(" is missing'],
    ['input +', 'character 8: a number, a name or "(" is missing'],
    ['input output', 'character 7: the end is missing'],
    ['(input', 'character 7: ")" is missing'],
    ['1 + outputs', 'character 5: no value is named "outputs"; there are input, output'],
    ['input; output', 'character 6: ";" means nothing here'],
    ['constructor', 'no value is named "constructor"'],
    ['input ** 2', 'character 8: a number, a name or "(" is missing'],
    ['process.exit()', 'no value is named "process"'],
    ['input / 0', 'character 9: this is 0, and nothing can be divided by it'],
    ['input / (2 - 2.0) + output', 'character 9: this is 0'],
    ['1 / -min(0, 1)', 'character 5: this is 0'],
    ['max input', 'character 5: "(" is missing'],
    ['max(input; 2)', 'character 10: ";" means nothing here'],
    ['max(input 2)', 'character 11: ")" is missing'],
    ['max()', 'character 5: a number, a name or "(" is missing'],
    ['('.repeat(500), 'must not be longer than 400 characters'],
  ])('%s is refused, with where and why', (text, message) => {
    expect(() => parseFormula(text, ['input', 'output'])).toThrow(FormulaError)
    expect(() => parseFormula(text, ['input', 'output'])).toThrow(message)
  })
})
