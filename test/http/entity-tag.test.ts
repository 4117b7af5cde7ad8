import { expect, it } from 'vitest'
import { asSent, weakened } from '../../src/http/entity-tag.ts'

it.each([
  ['"v1"', 'W/"v1-sluice"'],
  ['""', 'W/"-sluice"'],
  ['"a,b"', 'W/"a,b-sluice"'],
  ['"v1-sluice"', 'W/"v1-sluice-sluice"'],
])('a tag that is made weak is given back as it was sent: %s', (sent, made) => {
  expect(weakened(sent)).toBe(made)
  expect(asSent(made)).toBe(sent)
  // Some clients leave the mark of weak tags out.
  expect(asSent(made.slice(2))).toBe(sent)
})

it.each(['W/"v1"', 'v1', '"v1', ''])('a tag that is weak already, or none, stays what it is: %s', (sent) => {
  expect(weakened(sent)).toBe(sent)
  expect(asSent(sent)).toBe(sent)
})

it('of a list only the tags are changed that were made weak here', () => {
  expect(asSent('W/"a", W/"b-sluice",  "c", "d-sluice", "-sluice" , *')).toBe('W/"a", "b",  "c", "d", "" , *')
  expect(asSent('*')).toBe('*')
})
