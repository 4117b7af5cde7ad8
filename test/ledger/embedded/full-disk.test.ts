import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { type ChargeSet, chargeSetOf } from '../../../src/ledger/ledger.ts'
import { LedgerFiles } from '../../../src/ledger/embedded/ledger-files.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import { MemoryLedger, type MemoryLedgerOptions } from '../../../src/ledger/embedded/memory-ledger.ts'
import { hasSmallDisks, SmallDisk } from '../../support/small-disk.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'

function chargeSetOfPartition(partition: string): ChargeSet {
  return chargeSetOf(partition, [
    { limit: limitOf({ id: 'only', class: 'any', requests: 100, windowMs: 60_000, countingToleranceMs: 0 }) },
  ])
}

const OF_THE_DAY = { id: 'day', class: 'any', requests: 100, windowMs: 86_400_000, countingToleranceMs: 0 }

const chargeSet = chargeSetOfPartition('any/main')

describe.skipIf(!hasSmallDisks)('the embedded ledger on a full disk', () => {
  const opened: MemoryLedger[] = []
  afterEach(async () => {
    for (const ledger of opened.splice(0)) await ledger.close()
  })

  function start(disk: SmallDisk, options: MemoryLedgerOptions = {}, afterMs = 0) {
    const clock = new SimulatedClock(1_000_000 + afterMs)
    const dir = join(disk.path, 'store')
    const files = new LedgerFiles(dir)
    const problems: (string | undefined)[] = []
    const ledger = new MemoryLedger(clock, files, {
      onChange: (problem) => void problems.push(problem),
      ...options,
    })
    opened.push(ledger)
    return { clock, dir, files, ledger, problems }
  }

  /** Charges so many calls, one by one, and returns how many were granted. */
  function spend(ledger: MemoryLedger, calls: number, of = chargeSet): number {
    let granted = 0
    for (let i = 0; i < calls; i++) {
      const grant = ledger.charge(of, 1)
      if (grant.granted === 1) ledger.commit(grant)
      granted += grant.granted
    }
    return granted
  }

  it('goes on counting in memory, says so once, and writes again as soon as there is room', async () => {
    const disk = new SmallDisk()
    const { clock, dir, ledger, problems } = start(disk)
    expect(spend(ledger, 3)).toBe(3)
    disk.fill()
    expect(spend(ledger, 200)).toBe(97)
    expect(ledger.isReady).toBe(true)
    expect(ledger.isDegraded).toBe(true)
    expect(ledger.problem).toMatch(
      /can not be written to disk \(ENOSPC.*counted in memory, and taken for used up after a crash/,
    )
    await clock.advance(10_000)
    expect(problems).toEqual([expect.stringContaining('ENOSPC')])
    expect(readdirSync(dir).toSorted()).toEqual(['lock', 'quota.behind'])
    disk.free()
    await clock.advance(1_000)
    expect([ledger.isDegraded, ledger.problem]).toEqual([false, undefined])
    expect(problems).toEqual([expect.stringContaining('ENOSPC'), undefined])
    expect(readdirSync(dir).toSorted()).toEqual(['lock', 'quota'])
    expect(readdirSync(join(dir, 'quota'))).toEqual(['any%2Fmain.json'])
    expect(readFileSync(join(dir, 'quota', 'any%2Fmain.json'), 'utf8')).toContain('"uncertain":0')
    await ledger.close()
    expect(spend(start(disk).ledger, 1)).toBe(0)
  })

  it('that is freed before the end is written at the end', async () => {
    const disk = new SmallDisk()
    const { dir, ledger } = start(disk)
    spend(ledger, 1)
    disk.fill()
    spend(ledger, 50)
    disk.free()
    await ledger.close()
    expect(readdirSync(dir)).toEqual(['quota'])
    expect(spend(start(disk).ledger, 100)).toBe(49)
  })

  it.each(['killed', 'stopped'])(
    'takes every quota for used up, and not for longer than a window, after it was %s meanwhile',
    async (how) => {
      const disk = new SmallDisk()
      const { files, dir, ledger } = start(disk)
      spend(ledger, 1)
      disk.fill()
      spend(ledger, 99)
      expect(spend(ledger, 1, chargeSetOfPartition('any/new'))).toBe(1)
      if (how === 'stopped') await ledger.close()
      else files.unlock()
      expect(readdirSync(dir)).toEqual(['quota.behind'])
      disk.free()
      const after = start(disk)
      expect(spend(after.ledger, 1)).toBe(0)
      expect(spend(after.ledger, 1, chargeSetOfPartition('any/new'))).toBe(0)
      expect(after.ledger.isDegraded).toBe(false)
      // Killed once more, before anything else was written.
      after.files.unlock()
      const again = start(disk)
      expect(spend(again.ledger, 1)).toBe(0)
      await again.clock.advance(61_000)
      expect(spend(again.ledger, 200)).toBe(100)
    },
  )

  it.each(['rolling', 'calendar'] as const)(
    'takes the quota (%s) of which it could not write for used up after several restarts, and not for longer than a window',
    async (kind) => {
      const disk = new SmallDisk()
      const { dir, ledger } = start(disk)
      disk.fill()
      const unwritten = () => chargeSetOf('client:bot', [{ limit: limitOf({ ...OF_THE_DAY, kind }) }])
      expect(spend(ledger, 90, unwritten())).toBe(90)
      await ledger.close()
      disk.free()
      // It has no call of that client.
      await start(disk).ledger.close()
      expect(readdirSync(dir)).toEqual(['quota'])
      for (const afterMs of [0, 3_600_000]) {
        const after = start(disk, {}, afterMs)
        expect(spend(after.ledger, 1, unwritten())).toBe(0)
        after.files.unlock()
      }
      const { ledger: later } = start(disk, {}, 86_400_000 + 3_600_000)
      expect(spend(later, 200, unwritten())).toBe(100)
    },
  )

  it('refuses calls with onOutage: closed, and is not ready, until there is room', async () => {
    const disk = new SmallDisk()
    const { clock, ledger } = start(disk, { onOutage: 'closed' })
    spend(ledger, 5)
    disk.fill()
    expect(() => spend(ledger, 1)).toThrow('the quota store did not answer')
    expect([ledger.isReady, ledger.isDegraded]).toEqual([false, true])
    expect(ledger.problem).toContain('refused')
    disk.free()
    await clock.advance(1_000)
    expect(ledger.isReady).toBe(true)
    expect(spend(ledger, 100)).toBe(95)
  })

  it('refuses calls where the folder can not be marked, but lets them pass with onOutage: open', () => {
    for (const onOutage of ['lease', 'open'] as const) {
      const disk = new SmallDisk()
      const { ledger, dir, problems } = start(disk, { onOutage })
      spend(ledger, 5)
      disk.fill()
      // In the way of the mark.
      disk.free()
      mkdirSync(join(dir, 'quota.behind'))
      writeFileSync(join(dir, 'quota.behind', 'in the way'), '')
      disk.fill()
      if (onOutage === 'open') expect(spend(ledger, 100)).toBe(95)
      else expect(() => spend(ledger, 1)).toThrow('the quota store did not answer')
      expect([ledger.isReady, ledger.isDegraded]).toEqual([onOutage === 'open', true])
      const what =
        onOutage === 'open' ? 'quotas are counted in memory, and may be granted again' : 'calls .* are refused'
      expect(problems).toEqual([ledger.problem])
      expect(ledger.problem).toMatch(new RegExp(`^the quota can not be written to disk \\(ENOSPC.*\\): ${what}`))
      rmSync(join(dir, 'quota.behind'), { recursive: true })
    }
  })

  it('does not start, says why and what to do, and leaves nothing behind however often it is tried', () => {
    const disk = new SmallDisk()
    disk.fill()
    for (let i = 0; i < 5; i++) {
      expect(() => new LedgerFiles(join(disk.path, 'store'))).toThrow(
        /store folder .*store can not be written \(ENOSPC.*make room/,
      )
    }
    disk.free()
    start(disk)
    expect(readdirSync(join(disk.path, 'store')).toSorted()).toEqual(['lock', 'quota'])
  })
})
