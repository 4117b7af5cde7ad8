import { describe, expect, it } from 'vitest'
import { ClientKeys, createKey, hashKey } from '../../src/clients/keys.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

describe('client keys', () => {
  it('are found by their hash, whatever their form', () => {
    const keys = new ClientKeys<string>(new SimulatedClock())
    for (const [key, client] of [
      ['slk_x', 'a'],
      ['any other text', 'b'],
      ['schlüssel', 'b'],
    ])
      keys.add({ hash: hashKey(key!) }, client!)
    expect(['slk_x', 'any other text', 'schlüssel', 'slk_y', ''].map((key) => keys.find(key, {}))).toEqual([
      'a',
      'b',
      'b',
      undefined,
      undefined,
    ])
  })

  it('are told apart by the whole hash, not by its beginning', () => {
    const keys = new ClientKeys<string>(new SimulatedClock())
    const { keyHash, key } = createKey()
    const near = `${keyHash.slice(0, 20)}${'0'.repeat(51)}`
    keys.add({ hash: near }, 'near')
    expect(keys.find(key, {})).toBeUndefined()
    keys.add({ hash: keyHash }, 'exact')
    expect(keys.find(key, {})).toBe('exact')
  })

  it('are believed again on the connection that presented them, and no other key with them', () => {
    const keys = new ClientKeys<string>(new SimulatedClock())
    keys.add({ hash: hashKey('slk_x') }, 'a')
    const connection = {}
    expect(keys.find('slk_y', connection)).toBeUndefined()
    expect(keys.find('slk_x', connection)).toBe('a')
    expect(keys.find('slk_x', connection)).toBe('a')
    expect(keys.find('slk_y', connection)).toBeUndefined()
    expect(keys.find('slk_x', {})).toBe('a')
  })

  it('overlap, and each is refused from the moment it expires, on a connection that it opened, too', async () => {
    const clock = new SimulatedClock()
    const keys = new ClientKeys<string>(clock)
    keys.add({ hash: hashKey('old'), expires: clock.now() + 1_000 }, 'a')
    keys.add({ hash: hashKey('new') }, 'a')
    const connection = {}
    expect(keys.find('old', connection)).toBe('a')
    expect(keys.find('new', {})).toBe('a')
    await clock.advance(999)
    expect(keys.find('old', connection)).toBe('a')
    await clock.advance(1)
    expect(keys.find('old', connection)).toBe('expired')
    expect(keys.find('old', {})).toBe('expired')
    expect(keys.find('new', connection)).toBe('a')
  })

  it('are made new each time, long enough, and recognisable', () => {
    const made = Array.from({ length: 50 }, createKey)
    expect(new Set(made.map(({ key }) => key)).size).toBe(50)
    for (const { key, keyHash } of made) {
      expect(key).toMatch(/^slk_[A-Za-z0-9_-]{43}$/)
      expect(keyHash).toBe(hashKey(key))
      expect(keyHash).toMatch(/^sha256:[0-9a-f]{64}$/)
    }
  })
})
