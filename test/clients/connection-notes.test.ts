import { inspect } from 'node:util'
import { expect, it } from 'vitest'
import { ConnectionNotes } from '../../src/clients/connection-notes.ts'

const NAME = Symbol('note')

it('a note of a connection is found by who made it, until others make one in its place', () => {
  const [first, second] = [new ConnectionNotes<string>(NAME), new ConnectionNotes<string>(NAME)]
  const [connection, other] = [{}, {}]
  first.set(connection, 'one')
  expect([first.get(connection), first.get(other), second.get(connection)]).toEqual(['one', undefined, undefined])
  second.set(connection, 'two')
  expect([first.get(connection), second.get(connection)]).toEqual([undefined, 'two'])
})

it('a connection that is printed does not show its note', () => {
  const connection = {}
  new ConnectionNotes<object>(NAME).set(connection, { key: 'slk_secret' })
  expect(inspect(connection, { depth: 9, showHidden: true })).not.toContain('slk_secret')
})
