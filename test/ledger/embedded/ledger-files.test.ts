import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type ChargeSet, chargeSetOf } from '../../../src/ledger/ledger.ts'
import { LedgerFiles } from '../../../src/ledger/embedded/ledger-files.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import { MemoryLedger } from '../../../src/ledger/embedded/memory-ledger.ts'
import { newFolder } from '../../support/gateway.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'

const reads: ChargeSet = chargeSetOf('harness/prod', [
  { limit: limitOf({ id: 'read.60000', class: 'read', requests: 100, windowMs: 60_000 }) },
])

const ACCOUNTS = 200
const accounts = Array.from({ length: ACCOUNTS }, (_, i) =>
  chargeSetOf(
    `harness/${i}`,
    reads.limits.map((limit) => ({ limit })),
  ),
)

describe('the embedded ledger on disk', () => {
  it('goes on after an orderly stop exactly where it was', async () => {
    const dir = newFolder()
    const clock = new SimulatedClock()
    const before = new MemoryLedger(clock, new LedgerFiles(dir))
    const early = before.charge(reads, 40)
    for (let i = 0; i < 40; i++) before.commit(early)
    await clock.advance(30_000)
    const later = before.charge(reads, 20)
    for (let i = 0; i < 20; i++) before.commit(later)
    await before.close()
    await clock.advance(1_000)
    const after = new MemoryLedger(clock, new LedgerFiles(dir))
    expect((await after.usage(reads))[0]!.used).toBe(60)
    expect(after.charge(reads, 50).granted).toBe(40)
    await clock.advance(29_700)
    expect((await after.usage(reads))[0]!.used).toBe(60)
  })

  it('counts after a crash everything that may have been charged, and at most a twentieth more', async () => {
    for (const charged of [1, 4, 5, 6, 37, 95, 100]) {
      const dir = newFolder()
      const clock = new SimulatedClock()
      const files = new LedgerFiles(dir)
      const before = new MemoryLedger(clock, files)
      for (let i = 0; i < charged; i++) before.commit(before.charge(reads, 1))
      files.unlock() // nothing else is said: as after kill -9
      await clock.advance(10)
      const after = new MemoryLedger(clock, new LedgerFiles(dir))
      const { used } = (await after.usage(reads))[0]!
      expect(used).toBeGreaterThanOrEqual(charged)
      expect(used).toBeLessThanOrEqual(charged + 6)
    }
  })

  it('counts calls that were in flight at a crash as late as the new start, for they may arrive until then', async () => {
    const dir = newFolder()
    const clock = new SimulatedClock()
    const files = new LedgerFiles(dir)
    const before = new MemoryLedger(clock, files)
    before.charge(reads, 50)
    await clock.advance(50_000)
    before.charge(reads, 1) // its write knows of the fifty in flight
    files.unlock()
    const after = new MemoryLedger(clock, new LedgerFiles(dir))
    await clock.advance(55_000)
    expect((await after.usage(reads))[0]!.used).toBeGreaterThanOrEqual(50)
  })

  it('renews thousands of calls in flight, and writes what hundreds of accounts have in flight, over many turns of the event loop', async () => {
    const clock = new SimulatedClock()
    const files = new LedgerFiles(newFolder())
    const ledger = new MemoryLedger(clock, files)
    const grants = accounts.flatMap((account) => Array.from({ length: 10 }, () => ledger.charge(account, 1)))
    const first = grants[0]!.at
    let turn = 0
    const saved = new Map<number, number>()
    const save = files.save.bind(files)
    files.save = (partition, limits) => {
      saved.set(turn, (saved.get(turn) ?? 0) + 1)
      save(partition, limits)
    }
    const renewed = () => grants.filter(({ at }) => at > first).length
    const perTurn: number[] = []
    let isOver = false
    const look = (before: number): void => {
      turn++
      const now = renewed()
      perTurn.push(now - before)
      if (!isOver) setImmediate(look, now)
    }
    setImmediate(look, 0)
    await clock.advance(reads.renewMs)
    isOver = true
    expect(renewed()).toBe(grants.length)
    expect(Math.max(...perTurn)).toBeLessThanOrEqual(512)
    expect([...saved.values()].reduce((sum, files) => sum + files, 0)).toBe(ACCOUNTS)
    expect(Math.max(...saved.values())).toBeLessThanOrEqual(32)
    await ledger.close()
  })

  it('writes nothing any more once it is closed, however many accounts it was about to write', async () => {
    const clock = new SimulatedClock()
    const files = new LedgerFiles(newFolder())
    const ledger = new MemoryLedger(clock, files)
    for (const account of accounts) ledger.charge(account, 1)
    const save = files.save.bind(files)
    let writes = 0
    let closed: Promise<void> | undefined
    let writesOfClose = Infinity
    files.save = (partition, limits) => {
      save(partition, limits)
      if (++writes > 1) return
      setImmediate(() => {
        closed = ledger.close()
        writesOfClose = writes
      })
    }
    await clock.advance(reads.renewMs)
    await closed
    await clock.advance(reads.renewMs)
    expect(writesOfClose).toBeLessThan(2 * ACCOUNTS)
    expect(writes).toBe(writesOfClose)
  })

  it('takes a short window for full after a crash', async () => {
    const dir = newFolder()
    const clock = new SimulatedClock()
    const files = new LedgerFiles(dir)
    const limit = limitOf({ id: 'write.1000', class: 'write', requests: 20, windowMs: 1_000, countingToleranceMs: 0 })
    const burst = chargeSetOf('a/b', [{ limit }])
    new MemoryLedger(clock, files).charge(burst, 1)
    files.unlock()
    const after = new MemoryLedger(clock, new LedgerFiles(dir))
    expect(after.charge(burst, 1).granted).toBe(0)
    await clock.advance(1_520)
    expect(after.charge(burst, 20).granted).toBe(20)
  })

  it('writes an account’s file at most twenty times for a whole quota', () => {
    const dir = newFolder()
    const files = new LedgerFiles(dir)
    const save = files.save.bind(files)
    let writes = 0
    files.save = (home, limits) => {
      writes++
      save(home, limits)
    }
    const ledger = new MemoryLedger(new SimulatedClock(), files)
    for (let i = 0; i < 100; i++) ledger.charge(reads, 1)
    expect(writes).toBe(20)
  })

  it('refuses a damaged file instead of granting its quota anew', () => {
    const dir = newFolder()
    const files = new LedgerFiles(dir)
    files.save('harness/prod', {})
    const [name = ''] = readdirSync(join(dir, 'quota'))
    writeFileSync(join(dir, 'quota', name), '{"home":')
    expect(() => new MemoryLedger(new SimulatedClock(), files)).toThrow(/harness%2Fprod\.json is damaged/)
  })

  it('lets only one running process have a folder, and takes over from a dead one', async () => {
    const dir = newFolder()
    const other = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'])
    new LedgerFiles(dir)
    writeFileSync(join(dir, 'lock'), String(other.pid))
    expect(() => new LedgerFiles(dir)).toThrow(
      new RegExp(`^a gateway already runs with the store folder .* \\(process ${other.pid}\\): `),
    )
    await new Promise((resolve) => other.once('exit', resolve).kill('SIGKILL'))
    new LedgerFiles(dir)
    expect(readFileSync(join(dir, 'lock'), 'utf8')).toMatch(new RegExp(`^${process.pid}( |$)`))
  })

  it('takes over from a dead process whose number another has now, and says what to remove where it can not know', () => {
    const dir = newFolder()
    const lock = join(dir, 'lock')
    new LedgerFiles(dir)
    // The first process of the machine runs, and began when it did.
    writeFileSync(lock, '1 987654321987')
    new LedgerFiles(dir)
    expect(readFileSync(lock, 'utf8')).toMatch(new RegExp(`^${process.pid} `))
    writeFileSync(lock, '1')
    expect(() => new LedgerFiles(dir)).toThrow(`a gateway already runs with the store folder ${dir} (process 1)`)
    expect(() => new LedgerFiles(dir)).toThrow(
      `If process 1 is no gateway, its number was that of one that has died: remove ${lock}`,
    )
  })

  it('removes what processes have left that were killed, or had no room, and nothing else', () => {
    const dir = newFolder()
    new LedgerFiles(dir).save('a/b', {})
    const left = ['lock.00000000-0000-4000-8000-000000000000', 'lock.00000000-0000-4000-8000-000000000001']
    writeFileSync(join(dir, left[0]!), '')
    utimesSync(join(dir, left[0]!), 1, 1)
    writeFileSync(join(dir, left[1]!), '999999999 1')
    writeFileSync(join(dir, 'quota', 'a%2Fb.json.tmp'), '{"ver')
    writeFileSync(join(dir, 'clients.json'), '')
    new LedgerFiles(dir)
    expect(readdirSync(dir).toSorted()).toEqual(['clients.json', 'lock', 'quota'])
    expect(readdirSync(join(dir, 'quota'))).toEqual(['a%2Fb.json'])
  })

  it('goes to one of many processes that find the lock of a dead one at once', async () => {
    const dead = spawn(process.execPath, ['-e', ''])
    await once(dead, 'exit')
    const contenders = Array.from({ length: 8 }, () => new Contender())
    await Promise.all(contenders.map((contender) => contender.isUp))
    for (let round = 0; round < 60; round++) {
      const dir = newFolder()
      writeFileSync(join(dir, 'lock'), String(dead.pid))
      const answers = await Promise.all(contenders.map((contender) => contender.tryToLock(dir)))
      expect(answers.filter((answer) => answer === 'locked')).toEqual(['locked'])
      expect(readdirSync(dir).toSorted()).toEqual(['lock', 'quota'])
    }
  })

  it('keeps its files to its own user', () => {
    const dir = newFolder()
    new LedgerFiles(dir).save('a/b', {})
    const modeOf = (path: string): number => statSync(join(dir, path)).mode & 0o777
    expect(readdirSync(join(dir, 'quota'))).toEqual(['a%2Fb.json'])
    expect(modeOf('quota/a%2Fb.json')).toBe(0o600)
    expect(modeOf('quota')).toBe(0o700)
    expect(modeOf('lock')).toBe(0o600)
  })
})

/** A process that tries to have the folders it is told to. */
class Contender {
  readonly #child: ChildProcess = fork(new URL('../../support/folder-contender.ts', import.meta.url))
  readonly isUp = once(this.#child, 'message')

  constructor() {
    onTestFinished(() => void this.#child.kill('SIGKILL'))
  }

  async tryToLock(dir: string): Promise<unknown> {
    const answer = once(this.#child, 'message')
    this.#child.send(dir)
    return (await answer)[0]
  }
}
