import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { AuditEntry } from '../../src/audit/audit.ts'
import { FileAudit } from '../../src/audit/file-audit.ts'
import { systemClock } from '../../src/time/clock.ts'
import { FileRecords } from '../../src/records/file-records.ts'
import { replaceFile } from '../../src/files/replace-file.ts'
import { newFolder } from '../support/gateway.ts'
import { hasSmallDisks, SmallDisk } from '../support/small-disk.ts'

const LONG = 'x'.repeat(20_000)

function recordsIn(dir: string): FileRecords<{ text: string }> {
  const records = new FileRecords<{ text: string }>(join(dir, 'records.json'), 'things', systemClock)
  onTestFinished(() => records.close())
  return records
}

function entry(name: string): AuditEntry {
  const by = { actor: 'me', address: '127.0.0.1', at: '2026-11-21T12:00:00.000Z' }
  return { id: `audit_${name}`, action: 'client.create', target: 'x', name, before: null, after: null, ...by }
}

async function namesIn(audit: FileAudit): Promise<string[]> {
  return (await Array.fromAsync(audit.read())).map(({ name }) => name.slice(0, 20))
}

describe.skipIf(!hasSmallDisks)('on a full disk', () => {
  it('a change of records fails as a whole, leaves nothing behind, and can be made once there is room', async () => {
    const disk = new SmallDisk()
    const records = recordsIn(disk.path)
    await records.change('a', () => ({ text: 'first' }))
    const before = readFileSync(join(disk.path, 'records.json'), 'utf8')
    disk.fill()
    for (let i = 0; i < 3; i++) await expect(records.change('b', () => ({ text: LONG }))).rejects.toThrow('ENOSPC')
    expect(readdirSync(disk.path).toSorted()).toEqual(['filler', 'records.json'])
    expect(readFileSync(join(disk.path, 'records.json'), 'utf8')).toBe(before)
    disk.free()
    await records.change('b', () => ({ text: LONG }))
    expect([...(await records.read()).keys()]).toEqual(['a', 'b'])
  })

  it('an audit entry fails as a whole, and later ones are kept, each in a line of its own', async () => {
    const disk = new SmallDisk()
    const audit = new FileAudit(join(disk.path, 'audit.jsonl'))
    onTestFinished(() => audit.close())
    await audit.append(entry('first'))
    disk.fill()
    await expect(audit.append(entry(`second${LONG}`))).rejects.toThrow('ENOSPC')
    disk.free()
    await audit.append(entry('third'))
    expect(await namesIn(audit)).toEqual(['third', 'first'])
    expect(readFileSync(join(disk.path, 'audit.jsonl'), 'utf8').trimEnd().split('\n')).toHaveLength(2)
  })

  it('a trail that could not be begun is begun once there is room', async () => {
    const disk = new SmallDisk()
    disk.fill()
    const audit = new FileAudit(join(disk.path, 'store', 'audit.jsonl'))
    await expect(audit.append(entry('first'))).rejects.toThrow('ENOSPC')
    disk.free()
    await audit.append(entry('second'))
    expect(await namesIn(audit)).toEqual(['second'])
    await audit.close()
  })
})

describe('a trail', () => {
  it('of which a crash cut a line off goes on with a line of its own', async () => {
    const path = join(newFolder(), 'audit.jsonl')
    const before = new FileAudit(path)
    await before.append(entry('first'))
    await before.close()
    appendFileSync(path, '{"id":"cut off')
    const after = new FileAudit(path)
    await after.append(entry('second'))
    expect(await namesIn(after)).toEqual(['second', 'first'])
    await after.close()
  })

  it('that holds nothing but a part of a line is begun anew', async () => {
    const path = join(newFolder(), 'audit.jsonl')
    writeFileSync(path, '{"id":')
    const audit = new FileAudit(path)
    await audit.append(entry('first'))
    expect(await namesIn(audit)).toEqual(['first'])
    await audit.close()
  })
})

describe('a file of records', () => {
  it.each([
    '',
    '{',
    '{}',
    'null',
    '[]',
    '{"things":null}',
    '{"things":"abc"}',
    '{"things":[]}',
    '{"things":{"a":null}}',
  ])('of another shape (%s) is refused with what to do, and is not written over', async (text) => {
    const dir = newFolder()
    writeFileSync(join(dir, 'records.json'), text)
    const records = recordsIn(dir)
    await expect(records.read()).rejects.toThrow(/records\.json is damaged; put back a copy of it, or remove it/)
    await expect(records.change('a', () => ({ text: '' }))).rejects.toThrow(/is damaged/)
    expect(readFileSync(join(dir, 'records.json'), 'utf8')).toBe(text)
    expect(readdirSync(dir)).toEqual(['records.json'])
  })

  it('whose lock was made at another time of day is not taken from who has it', async () => {
    const dir = newFolder()
    const records = recordsIn(dir)
    const other = recordsIn(dir)
    await records.change('a', () => ({ text: '' }))
    let isReleased = false
    // By the wall clock it is old at once.
    mkdirSync(join(dir, 'records.json.lock'))
    utimesSync(join(dir, 'records.json.lock'), 1, 1)
    setTimeout(() => {
      isReleased = true
      rmdirSync(join(dir, 'records.json.lock'))
    }, 300)
    await other.change('a', () => {
      expect(isReleased).toBe(true)
      return { text: 'changed' }
    })
  })
})

describe('the lock of a file of records', () => {
  it('is left to whoever took it over, where a change took too long', async () => {
    const dir = newFolder()
    const lock = join(dir, 'records.json.lock')
    await recordsIn(dir).change('a', () => {
      // As another process does that takes it for left behind.
      rmdirSync(lock)
      mkdirSync(lock)
      return { text: '' }
    })
    expect(readdirSync(dir)).toContain('records.json.lock')
  })

  it('is taken over when it was left behind, and nothing of it stays', async () => {
    const dir = newFolder()
    mkdirSync(join(dir, 'records.json.lock'))
    await Promise.all([1, 2, 3].map((i) => recordsIn(dir).change(String(i), () => ({ text: '' }))))
    expect(readdirSync(dir)).toEqual(['records.json'])
    expect((await recordsIn(dir).read()).size).toBe(3)
  })
})

describe('a file that is replaced', () => {
  it('stays as it was, with nothing beside it, where it can not be', () => {
    const dir = newFolder()
    mkdirSync(join(dir, 'file', 'in the way'), { recursive: true })
    expect(() => replaceFile(join(dir, 'file'), 'text')).toThrow()
    expect(readdirSync(dir)).toEqual(['file'])
  })
})
