import { expect, it } from 'vitest'
import { flatCopy } from '../../src/schema/flat-copy.ts'

const TEXTS = ['', 'a', 'ab', 'a text of more than thirteen characters', 'é€', '😀', '\ud83d', 'a😀b'.repeat(20)]

it('has the characters of the text, or of both', () => {
  for (const first of TEXTS) {
    expect(flatCopy(first)).toBe(first)
    for (const second of TEXTS) expect(flatCopy(first, second)).toBe(first + second)
  }
})
