import { describe, expect, it } from 'vitest'
import { Cancellation } from '../../src/time/cancellation.ts'

function setUp() {
  const cancellation = new Cancellation()
  const told: string[] = []
  const subscribe = (name: string) => cancellation.subscribe(() => void told.push(name))
  return { cancellation, told, subscribe }
}

describe('a cancellation', () => {
  it('tells everyone who has subscribed, in that order and once', () => {
    const { cancellation, told, subscribe } = setUp()
    for (const name of ['a', 'b', 'c']) subscribe(name)
    expect(cancellation.isCancelled).toBe(false)
    cancellation.cancel()
    cancellation.cancel()
    expect([told, cancellation.isCancelled]).toEqual([['a', 'b', 'c'], true])
  })

  it('tells who subscribes after it at once', () => {
    const { cancellation, told, subscribe } = setUp()
    cancellation.cancel()
    subscribe('late')[Symbol.dispose]()
    expect(told).toEqual(['late'])
  })

  it.each([
    ['the first', ['a'], ['b', 'c']],
    ['one between others', ['b'], ['a', 'c']],
    ['the last', ['c'], ['a', 'b']],
    ['one that ends twice', ['b', 'b'], ['a', 'c']],
    ['all', ['b', 'a', 'c'], []],
  ])('does not tell who has ended its subscription: %s', (_, ended, left) => {
    const { cancellation, told, subscribe } = setUp()
    const subscriptions = new Map(['a', 'b', 'c'].map((name) => [name, subscribe(name)]))
    for (const name of ended) subscriptions.get(name)![Symbol.dispose]()
    cancellation.cancel()
    expect(told).toEqual(left)
  })

  it('does not tell whose subscription another subscriber ends meanwhile', () => {
    const { cancellation, told, subscribe } = setUp()
    const others: Disposable[] = []
    cancellation.subscribe(() => others[0]![Symbol.dispose]())
    others.push(subscribe('other'))
    subscribe('last')
    cancellation.cancel()
    expect(told).toEqual(['last'])
  })

  it('tells the others although one throws, and then throws that', () => {
    const { cancellation, told, subscribe } = setUp()
    cancellation.subscribe(() => {
      throw new Error('a mistake')
    })
    subscribe('other')
    expect(() => cancellation.cancel()).toThrow('a mistake')
    expect(told).toEqual(['other'])
  })
})
