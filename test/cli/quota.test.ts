import { describe, expect, it } from 'vitest'
import { quotaTable } from '../../src/cli/quota.ts'
import type { QuotaRow } from '../../src/server/admin/status.ts'

function row(name: string, used: number, effective = 100): QuotaRow {
  const counted = {
    limit: 100,
    effective,
    used,
    remaining: Math.max(0, effective - used),
    resetMs: 59_000,
    exhaustionInMs: null,
    burnRatio: 0,
    waiting: 0,
  }
  return { upstream: 'harness', account: name, class: 'read', window: '1m', ...counted }
}

const plain = { width: 80, paint: (line: string): string => line }
const accountsIn = (table: string): string[] => [...table.matchAll(/^harness\/(\S+)/gm)].map(([, name = '']) => name)

describe('the table of quotas', () => {
  it('has the fullest first, by what can be used now', () => {
    const rows = [row('idle', 0), row('half', 50), row('reduced', 30, 40), row('over', 101), row('none', 0, 0)]
    expect(accountsIn(quotaTable(rows, plain))).toEqual(['over', 'none', 'reduced', 'half', 'idle'])
  })

  it('says when more comes back only where something is used', () => {
    const [, busy = '', idle = ''] = quotaTable([row('busy', 1), { ...row('idle', 0), resetMs: 0 }], plain).split('\n')
    expect([busy, idle]).toEqual([expect.stringMatching(/ 1 +59s +/), expect.stringMatching(/ 0 +- +/)])
  })

  it('has a question mark last, and unpainted, where nobody knows what is used', () => {
    const seen: number[] = []
    const paint = (line: string, fullness: number): string => {
      seen.push(fullness)
      return line
    }
    const table = quotaTable([{ ...row('away', 100), isLocal: true }, row('known', 1)], { ...plain, paint })
    expect(accountsIn(table)).toEqual(['known', 'away'])
    expect(table).toMatch(/away +read +1m +100 +100 +\? +- +-/)
    expect(seen.every((fullness) => fullness < 0.9)).toBe(true)
  })

  it('fits 80 columns and 24 lines, however many limits there are, and says how many it leaves out', () => {
    const rows = Array.from({ length: 300 }, (_, i) => row(`an-account-with-a-rather-long-name-${i}`, i % 100))
    const lines = quotaTable(rows, { ...plain, height: 24 }).split('\n')
    // What follows the last line break is the empty line on which the cursor stands.
    expect(lines.length - 1).toBeLessThanOrEqual(24)
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80)
    expect(lines.at(-2)).toBe(
      `… and ${300 - (lines.length - 3)} that are less full: make the window higher, or see npx sluice quota`,
    )
    const few = quotaTable(rows.slice(0, 23), { ...plain, height: 24 })
    expect([few.split('\n').length, few.includes('less full')]).toEqual([25, false])
  })

  it('marks what is used up, and what nearly is', () => {
    const seen: number[] = []
    const paint = (line: string, fullness: number): string => {
      seen.push(fullness)
      return `<${line}>`
    }
    const table = quotaTable([row('a', 100), row('b', 95), row('c', 1)], { ...plain, paint })
    expect(seen).toEqual([1, 0.95, 0.01])
    expect(table.split('\n').map((line) => line.startsWith('<'))).toEqual([false, true, true, true, false])
  })
})
