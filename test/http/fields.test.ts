import { describe, expect, it } from 'vitest'
import { joined, membersOf, onlyMember, onlyValue } from '../../src/http/fields.ts'

describe('the members of a field', () => {
  it.each<[string | string[] | undefined, string[]]>([
    [undefined, []],
    ['', []],
    [' 5 ', ['5']],
    ['5, 6', ['5', '6']],
    [
      ['5', ' 6,7'],
      ['5', '6', '7'],
    ],
    [' , 5 ,, ', ['5']],
    ['"a, b", c', ['"a, b"', 'c']],
    ['"a\\", b", c', ['"a\\", b"', 'c']],
    ['"open, b', ['"open, b']],
    [
      'Sat, 21 Nov 2026 10:00:30 GMT, Saturday, 21-Nov-26 10:00:30 GMT',
      ['Sat, 21 Nov 2026 10:00:30 GMT', 'Saturday, 21-Nov-26 10:00:30 GMT'],
    ],
  ])('of %j are %j', (field, members) => {
    expect(membersOf(field)).toEqual(members)
  })

  it('are found in a time that does not explode', () => {
    const before = process.cpuUsage().user
    membersOf(`${'"\\'.repeat(50_000)},${'sat, '.repeat(50_000)}${'"'.repeat(50_001)}`)
    expect(process.cpuUsage(undefined).user - before).toBeLessThan(1_000_000)
  })
})

describe('a field that may come once', () => {
  it.each<[string | string[] | undefined, string | undefined, string | undefined]>([
    [undefined, undefined, undefined],
    ['"x"', '"x"', '"x"'],
    [['"x"', '"x" '], '"x"', '"x"'],
    [['"x"', '"y"'], undefined, undefined],
    ['on, on', 'on, on', 'on'],
    ['on, off', 'on, off', undefined],
  ])('and is %j has the value %j, or as a word %j', (field, value, word) => {
    expect(onlyValue(field)).toBe(value)
    expect(onlyMember(field)).toBe(word)
  })

  it('is one text for whoever reads a list', () => {
    expect([joined(undefined), joined('a'), joined(['a', 'b'])]).toEqual(['', 'a', 'a, b'])
  })
})
