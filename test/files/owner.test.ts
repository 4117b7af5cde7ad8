import { execFile, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import { FileAudit } from '../../src/audit/file-audit.ts'
import { replaceFile } from '../../src/files/replace-file.ts'
import { Authority, rotateAuthority } from '../../src/forward-proxy/authority.ts'
import { FileRecords } from '../../src/records/file-records.ts'
import { systemClock } from '../../src/time/clock.ts'
import { newFolder } from '../support/gateway.ts'

/** A user and a group that need not exist. */
const OTHERS = { uid: 12_345, gid: 23_456 }

function folderOfOthers(): string {
  const folder = newFolder()
  chownSync(folder, OTHERS.uid, OTHERS.gid)
  return folder
}

/** Everything in a folder that belongs to somebody else than the others. */
function lostIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => {
    const { uid, gid } = statSync(join(folder, name))
    return uid !== OTHERS.uid || gid !== OTHERS.gid
  })
}

/** Of util-linux. It starts a root that has lost some of its power. */
function hasSetpriv(): boolean {
  return spawnSync('setpriv', ['--version']).status === 0
}

const ENTRY = { id: 'audit_1', action: 'a', target: 't', name: 'n', before: null, after: null }
const BY = { actor: 'me', address: 'local', at: '2026-11-21T12:00:00.000Z' }

describe.skipIf(process.getuid?.() !== 0)('what root writes', () => {
  it('belongs to the owner of the folder where it is new, folders that are missing included', async () => {
    const folder = folderOfOthers()
    const store = join(folder, 'data', 'store')
    const records = new FileRecords<object>(join(store, 'secrets.json'), 'secrets', systemClock)
    onTestFinished(() => records.close())
    await records.change('a', () => ({}))
    const audit = new FileAudit(join(folder, 'trail', 'audit.jsonl'))
    await audit.append({ ...ENTRY, ...BY })
    await audit.close()
    await Authority.open(join(folder, 'more', 'ca'), ['vendor.example'])
    expect(lostIn(folder)).toEqual([])
    expect(readdirSync(store)).toEqual(['secrets.json'])
    expect(statSync(join(store, 'secrets.json')).mode & 0o777).toBe(0o600)
  })

  it('belongs to the owner of what it replaces, whoever owns the folder', async () => {
    const folder = newFolder()
    const file = join(folder, 'file')
    writeFileSync(file, 'old')
    chownSync(file, OTHERS.uid, OTHERS.gid)
    replaceFile(file, 'new')
    await Authority.open(join(folder, 'ca'), ['vendor.example'])
    for (const name of ['ca', 'ca/ca.pem', 'ca/issuer.pem']) chownSync(join(folder, name), OTHERS.uid, OTHERS.gid)
    await rotateAuthority(join(folder, 'ca'), ['other.example'])
    expect(lostIn(folder)).toEqual([])
    expect(readFileSync(file, 'utf8')).toBe('new')
  })

  it('goes nowhere else, where the owner of the folder has put a link', async () => {
    const folder = folderOfOthers()
    const outside = join(newFolder(), 'outside')
    writeFileSync(outside, 'of root')
    symlinkSync(outside, join(folder, 'file.tmp'))
    replaceFile(join(folder, 'file'), 'text')
    const missing = join(newFolder(), 'missing')
    symlinkSync(missing, join(folder, 'audit.jsonl'))
    const audit = new FileAudit(join(folder, 'audit.jsonl'))
    onTestFinished(() => audit.close())
    await audit.append({ ...ENTRY, ...BY })
    expect(readFileSync(outside, 'utf8')).toBe('of root')
    for (const path of [outside, missing]) expect(statSync(path).uid).toBe(0)
    expect(statSync(missing).mode & 0o777).toBe(0o600)
    expect(lostIn(folder)).toEqual(['audit.jsonl'])
  })

  it.skipIf(!hasSetpriv())('stays its own where it may not do what it wants with the files of others', async () => {
    const folder = folderOfOthers()
    chmodSync(folder, 0o777)
    const owner = import.meta.resolve('../../src/files/owner.ts')
    const replace = import.meta.resolve('../../src/files/replace-file.ts')
    const script = `
      import { readFileSync } from 'node:fs'
      import { makeFolder } from ${JSON.stringify(owner)}
      import { replaceFile } from ${JSON.stringify(replace)}
      makeFolder('store/deep')
      for (const file of ['file', 'store/deep/file']) {
        replaceFile(file, 'text')
        console.log(readFileSync(file, 'utf8'))
      }`
    const kept = [
      '--bounding-set',
      '-dac_override,-dac_read_search',
      process.execPath,
      '--input-type=module',
      '-e',
      script,
    ]
    const { stdout, stderr } = await promisify(execFile)('setpriv', kept, { cwd: folder })
    expect({ stdout, stderr }).toEqual({ stdout: 'text\ntext\n', stderr: '' })
  })

  it('makes no folder anew that is there already', async () => {
    const folder = folderOfOthers()
    mkdirSync(join(folder, 'of root'))
    const records = new FileRecords<object>(join(folder, 'of root', 'clients.json'), 'clients', systemClock)
    onTestFinished(() => records.close())
    await records.change('a', () => ({}))
    expect(lostIn(folder)).toEqual(['of root', 'of root/clients.json'])
  })
})
