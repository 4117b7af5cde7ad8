import { describe, expect, it } from 'vitest'
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
    ['1 / (output - 2)', Infinity],
  ])('%s is %d where input is 4 and output is 2', (text, result) => {
    expect(parseFormula(text, ['input', 'output'])({ input: 4, output: 2 })).toBe(result)
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
    ['('.repeat(500), 'must not be longer than 400 characters'],
  ])('%s is refused, with where and why', (text, message) => {
    expect(() => parseFormula(text, ['input', 'output'])).toThrow(FormulaError)
    expect(() => parseFormula(text, ['input', 'output'])).toThrow(message)
  })
})
