import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { systemClock } from '../../src/time/clock.ts'
import { checkConfig } from '../../src/config/load.ts'
import { Secret } from '../../src/schema/secret.ts'
import { openStore } from '../../src/secrets/open.ts'
import { MasterKeys, type Sealed } from '../../src/secrets/master-keys.ts'
import { NoSuchSecretError, RefusedSecretError, type SecretStore } from '../../src/secrets/secret-store.ts'
import { newFolder, stores } from '../support/gateway.ts'
import { Program } from '../support/process.ts'

const KEY = randomBytes(32).toString('base64')
const OTHER_KEY = randomBytes(32).toString('hex')
const UPSTREAMS = { x: { url: 'http://127.0.0.1:9', accounts: { main: {} } } }

function open(store: object, secrets: object = { key: KEY }): SecretStore {
  const opened = openStore(checkConfig({ store, secrets, upstreams: UPSTREAMS }, 'test'), systemClock)!
  onTestFinished(() => opened.close())
  return opened
}

async function valueOf(store: SecretStore, name: string): Promise<unknown> {
  return (await store.read([name])).get(name)
}

describe('what is sealed', () => {
  const keys = new MasterKeys([new Secret(KEY)])

  it('opens again, and looks different each time', () => {
    const [one, two] = [keys.seal('name', 'valuë'), keys.seal('name', 'valuë')]
    expect(keys.open('name', one)).toBe('valuë')
    expect(one.nonce).not.toBe(two.nonce)
    expect(one.text).not.toBe(two.text)
    expect(JSON.stringify(one)).not.toContain(Buffer.from('valuë').toString('base64').slice(0, 6))
  })

  it('does not open under another name, with another key, nor changed in any bit', () => {
    const sealed = keys.seal('name', 'value')
    expect(() => keys.open('other', sealed)).toThrow('moved from another name')
    const others = new MasterKeys([new Secret(OTHER_KEY)])
    expect(() => others.open('name', sealed)).toThrow('another master key')
    const wrongId: Sealed = { ...sealed, key: others.first }
    expect(() => others.open('name', wrongId)).toThrow('is damaged')
    const bytes = Buffer.from(sealed.text, 'base64')
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = Buffer.from(bytes)
      changed[bit >> 3]! ^= 1 << (bit & 7)
      expect(() => keys.open('name', { ...sealed, text: changed.toString('base64') })).toThrow('is damaged')
    }
  })
})

describe.each(Object.entries(stores))('the store of secrets in %s', (_, newStore) => {
  it('keeps what is set, rotated and removed', async () => {
    const store = open(newStore())
    expect(await valueOf(store, 'a')).toEqual({ problem: 'there is no secret a in the store' })
    await expect(store.rotate('a', 'x', undefined)).rejects.toThrow(NoSuchSecretError)
    await store.set('a', 'one', undefined)
    await store.rotate('a', 'two', undefined)
    expect(await valueOf(store, 'a')).toEqual({ text: 'one', next: 'two' })
    await store.cancel('a')
    expect(await valueOf(store, 'a')).toEqual({ text: 'one' })
    await expect(store.finish('a')).rejects.toThrow('a is not being rotated')
    await store.rotate('a', 'three', Date.UTC(2030))
    await store.finish('a')
    expect(await valueOf(store, 'a')).toEqual({ text: 'three', expiresAt: Date.UTC(2030) })
    await store.remove('a')
    expect(await store.list()).toEqual([])
  })

  it('does not let a value follow that an upstream refused, unless that is forced', async () => {
    const store = open(newStore())
    const refused = async () => (await store.list()).filter(({ isRefused }) => isRefused).map(({ version }) => version)
    await store.set('a', 'one', undefined)
    await store.noteRefused('a', 'one')
    await store.rotate('a', 'two', undefined)
    // What was refused is another value, or another secret, or one that is gone.
    await store.noteRefused('a', 'earlier')
    await store.noteRefused('b', 'two')
    expect(await refused()).toEqual([])
    await store.noteRefused('a', 'two')
    expect(await refused()).toEqual(['next'])
    await store.rekey()
    expect(await refused()).toEqual(['next'])
    await expect(store.finish('a')).rejects.toThrow(RefusedSecretError)
    expect(await valueOf(store, 'a')).toEqual({ text: 'one', next: 'two' })
    await store.finish('a', { isForced: true })
    expect(await valueOf(store, 'a')).toEqual({ text: 'two' })
    expect(await refused()).toEqual([])
    await store.rotate('a', 'three', undefined)
    await store.noteRefused('a', 'three')
    await store.rotate('a', 'four', undefined)
    await store.finish('a')
    expect(await valueOf(store, 'a')).toEqual({ text: 'four' })
  })

  it('loses none of many changes that are made at once', async () => {
    const config = newStore()
    const names = Array.from({ length: 20 }, (_, i) => `secret-${i}`)
    await Promise.all(names.map((name) => open(config).set(name, name, undefined)))
    expect((await open(config).list()).map(({ name }) => name)).toEqual(names.toSorted())
  })

  it('is sealed anew with another master key, and then does without the old one', async () => {
    const config = newStore()
    await open(config).set('a', 'one', undefined)
    await open(config).rotate('a', 'two', undefined)
    await open(config).set('b', 'three', undefined)
    const closed = open(config, { key: OTHER_KEY })
    expect(await valueOf(closed, 'a')).toMatchObject({ problem: expect.stringContaining('another master key') })
    const both = open(config, { key: OTHER_KEY, oldKeys: [KEY] })
    expect(await valueOf(both, 'a')).toEqual({ text: 'one', next: 'two' })
    expect(await both.rekey()).toBe(2)
    expect(await both.rekey()).toBe(0)
    expect(await valueOf(closed, 'a')).toEqual({ text: 'one', next: 'two' })
    expect(await valueOf(open(config), 'b')).toMatchObject({ problem: expect.stringContaining('another master key') })
  })
})

describe('the store in a file', () => {
  it('can be read by its owner only, and shows no value', async () => {
    const dir = newFolder()
    await open({ dir }).set('a', 'plain-secret', undefined)
    const file = join(dir, 'secrets.json')
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(readFileSync(file, 'utf8')).not.toContain('plain-secret')
    expect(readdirSync(dir)).toEqual(['secrets.json'])
  })

  it('survives what a crash in the middle of a write leaves behind', async () => {
    const dir = newFolder()
    await open({ dir }).set('a', 'one', undefined)
    const file = join(dir, 'secrets.json')
    writeFileSync(`${file}.4711.tmp`, readFileSync(file, 'utf8').slice(0, 50))
    expect(await valueOf(open({ dir }), 'a')).toEqual({ text: 'one' })
    await open({ dir }).set('b', 'two', undefined)
    expect(await valueOf(open({ dir }), 'a')).toEqual({ text: 'one' })
  })

  it('is whole whenever its writer is killed', async () => {
    const dir = newFolder()
    const store = open({ dir })
    await store.set('a', 'v0', undefined)
    const script = `
      import { checkConfig } from ${JSON.stringify(new URL('../../src/config/load.ts', import.meta.url).href)}
      import { openStore } from ${JSON.stringify(new URL('../../src/secrets/open.ts', import.meta.url).href)}
      import { systemClock } from ${JSON.stringify(new URL('../../src/time/clock.ts', import.meta.url).href)}
      const config = checkConfig(${JSON.stringify({ store: { dir }, secrets: { key: KEY }, upstreams: UPSTREAMS })}, 'test')
      const store = openStore(config, systemClock)
      console.log('writing')
      for (let i = 1; ; i++) await store.set('a', 'v' + i, undefined)`
    for (let round = 0; round < 3; round++) {
      const writer = new Program([], { command: [process.execPath, '--input-type=module', '-e', script] })
      await writer.line(/writing/)
      await new Promise((resolve) => void setTimeout(resolve, 10 + 25 * round))
      writer.kill('SIGKILL')
      await writer.ended
      expect(await valueOf(open({ dir }), 'a')).toEqual({ text: expect.stringMatching(/^v\d+$/) })
    }
    // The lock of the one that was killed is given up after a while.
    await open({ dir }).set('a', 'after', undefined)
    expect(await valueOf(store, 'a')).toEqual({ text: 'after' })
  })

  it('that is damaged is a problem, not an empty store', async () => {
    const dir = newFolder()
    mkdirSync(dir, { recursive: true })
    writeFileSync(join(dir, 'secrets.json'), '{"secrets":')
    expect(await valueOf(open({ dir }), 'a')).toMatchObject({ problem: expect.stringContaining('is damaged') })
    await expect(open({ dir }).set('a', 'x', undefined)).rejects.toThrow('is damaged')
  })
})

describe('the store in Redis', () => {
  it('holds no value in clear', async () => {
    const config = stores.Redis()
    await open(config).set('a', 'plain-secret', undefined)
    const redis = new Redis(inject('redisUrl'))
    const stored = JSON.stringify(await redis.hgetall(`${config.prefix}:secrets`))
    redis.disconnect()
    expect(stored).toContain('"a"')
    expect(stored).not.toContain('plain-secret')
  })

  it('tells everyone of a change at once', async () => {
    const config = stores.Redis()
    const watchers = Array.from({ length: 3 }, () => open(config))
    const seen: unknown[] = [undefined, undefined, undefined]
    for (const [i, store] of watchers.entries()) {
      store.watch(['a'], () => void valueOf(store, 'a').then((value) => (seen[i] = value)))
    }
    const writer = open(config)
    await writer.set('a', 'one', undefined)
    await expect.poll(() => seen).toEqual(watchers.map(() => ({ text: 'one' })))
    await writer.set('a', 'two', undefined)
    await expect.poll(() => seen).toEqual(watchers.map(() => ({ text: 'two' })))
  })
})
