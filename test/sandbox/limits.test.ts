import { describe, expect, test } from 'vitest'
import { Limits } from '../../src/sandbox/limits.ts'

const READ = ['read']

describe('the limits of the stand-in', () => {
  test('are those of the Harness preset unless told otherwise', () => {
    const limits = new Limits({ write: { requests: 2, windowMs: 1_000 } })
    for (const charge of ['read', 'write', 'template', 'webhook']) limits.arrive('a', [charge], 0)
    const { read, write, template, webhook } = limits.counts().accounts['a']!
    expect([read, write, template, webhook].map((counts) => [counts?.limit, counts?.windowMs])).toEqual([
      [1_000, 60_000],
      [2, 1_000],
      [100, 60_000],
      [500, 60_000],
    ])
  })

  test('accept one more at the instant at which the oldest leaves, and say how long that is', () => {
    const limits = new Limits({ read: { requests: 2, windowMs: 1_000 } })
    limits.arrive('a', READ, 10)
    limits.arrive('a', READ, 200)
    expect(limits.arrive('a', READ, 1_009)).toEqual({ kind: 'throttled', waitMs: 1 })
    expect(limits.arrive('a', READ, 1_010)).toEqual({ kind: 'accepted' })
    expect(limits.arrive('a', READ, 1_010)).toEqual({ kind: 'throttled', waitMs: 190 })
  })

  test('do not charge what they refuse, but count it in the worst window', () => {
    const limits = new Limits({ read: { requests: 2, windowMs: 1_000 } })
    for (let at = 0; at < 5; at++) limits.arrive('a', READ, at)
    for (let at = 1_002; at < 1_004; at++) limits.arrive('a', READ, at)
    expect(limits.counts().accounts['a']!.read).toMatchObject({ accepted: 4, throttled: 3, worst: 5 })
  })

  test('refuse what is charged to a full class and charge none of its other classes', () => {
    const limits = new Limits({ template: { requests: 1, windowMs: 1_000 }, read: { requests: 2, windowMs: 1_000 } })
    limits.arrive('a', ['template', 'read'], 0)
    expect(limits.arrive('a', ['template', 'read'], 1).kind).toBe('throttled')
    expect(limits.arrive('a', READ, 2).kind).toBe('accepted')
    expect(limits.arrive('a', READ, 3).kind).toBe('throttled')
  })

  test('are each account’s own', () => {
    const limits = new Limits({ read: { requests: 1, windowMs: 1_000 } })
    expect(['a', 'b', 'a'].map((account) => limits.arrive(account, READ, 0).kind)).toEqual([
      'accepted',
      'accepted',
      'throttled',
    ])
  })

  test('can be lowered and raised without forgetting what was counted', () => {
    const limits = new Limits({ read: { requests: 3, windowMs: 1_000 } })
    for (let at = 0; at < 3; at++) limits.arrive('a', READ, at)
    limits.set({ read: { requests: 1, windowMs: 1_000 } })
    // All three must leave before there is room for one.
    expect(limits.arrive('a', READ, 500)).toEqual({ kind: 'throttled', waitMs: 502 })
    limits.set({ read: { requests: 4, windowMs: 1_000 } })
    expect(limits.arrive('a', READ, 600).kind).toBe('accepted')
    expect(limits.arrive('a', READ, 600).kind).toBe('throttled')
  })

  test('count anew when the window gets another length', () => {
    const limits = new Limits({ read: { requests: 1, windowMs: 1_000 } })
    limits.arrive('a', READ, 0)
    limits.set({ read: { requests: 1, windowMs: 2_000 } })
    expect(limits.arrive('a', READ, 1).kind).toBe('accepted')
    expect(limits.counts().accounts['a']!.read).toMatchObject({ accepted: 1, worst: 1, windowMs: 2_000 })
  })

  test('count accounts beyond ten thousand as one', () => {
    const limits = new Limits({})
    for (let i = 0; i < 10_100; i++) limits.arrive(`account${i}`, READ, 0)
    const { accounts } = limits.counts()
    expect(Object.keys(accounts)).toHaveLength(10_001)
    expect(accounts['others']!.read!.accepted).toBe(100)
  })
})
