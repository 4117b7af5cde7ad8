import { expect, test } from 'vitest'
import { type Member, Roster } from '../../src/time/roster.ts'

class Guest implements Member<Guest> {
  before: Guest | undefined
  after: Guest | undefined
  isListed = false
  readonly name: string

  constructor(name: string) {
    this.name = name
  }
}

test('a roster lists the same members as a Set, in the same order, whoever comes and goes', () => {
  const guests = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => new Guest(name))
  const roster = new Roster<Guest>()
  const set = new Set<Guest>()
  let seed = 1
  for (let step = 0; step < 5_000; step++) {
    seed = (seed * 48_271) % 2_147_483_647
    const guest = guests[seed % guests.length]!
    const does = seed % 5 < 3 ? 'add' : 'delete'
    roster[does](guest)
    set[does](guest)
    if (seed % 997 === 0) {
      roster.clear()
      set.clear()
    }
    expect(roster.all().map(({ name }) => name)).toEqual([...set].map(({ name }) => name))
    expect(roster.size).toBe(set.size)
  }
})

test('a guest that is gone leads to no other, so that it keeps nobody alive', () => {
  const [a, b, c] = [new Guest('a'), new Guest('b'), new Guest('c')]
  const roster = new Roster<Guest>()
  for (const guest of [a, b, c]) roster.add(guest)
  for (const guest of [b, a, c]) roster.delete(guest)
  for (const guest of [a, b, c])
    expect([guest.before, guest.after, guest.isListed]).toEqual([undefined, undefined, false])
})
