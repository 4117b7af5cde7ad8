import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { text as textOf } from 'node:stream/consumers'
import { expect, it } from 'vitest'
import { newFolder } from '../support/gateway.ts'

const LINES = 6_400
/**
 * Holds a line in each turn of the event loop, and says at the end by another descriptor how often it wrote to standard output. A
 * write takes two turns, in which another line comes.
 */
const PROGRAM = `
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { setImmediate } from 'node:timers/promises'
let writes = 0
fs.write = (fd, bytes, done) => {
  writes++
  void setImmediate().then(() => setImmediate()).then(() => done(null, fs.writeSync(fd, bytes)))
}
syncBuiltinESMExports()
const { LineOutput } = await import(${JSON.stringify(new URL('../../src/observe/output.ts', import.meta.url))})
const output = new LineOutput(() => undefined)
for (let i = 0; i < ${LINES}; i++) {
  output.hold(i + '\\n')
  await setImmediate()
}
await output.close(60_000)
fs.writeSync(3, String(writes))
`

it('writes lines to a file many at a time, also those that come while it writes, and loses none', async () => {
  const file = join(newFolder(), 'log')
  const log = openSync(file, 'w')
  const child = spawn(process.execPath, ['--input-type=module', '-e', PROGRAM], {
    stdio: ['ignore', log, 'inherit', 'pipe'],
  })
  const said = child.stdio[3] as NodeJS.ReadableStream
  let writes = ''
  said.on('data', (text) => (writes += text))
  await once(child, 'close')
  closeSync(log)
  expect(readFileSync(file, 'utf8')).toBe(Array.from({ length: LINES }, (_, i) => `${i}\n`).join(''))
  // 256 lines at a time are 25 writes; some more where a tenth of a second was over before.
  expect(Number(writes)).toBeGreaterThan(0)
  expect(Number(writes)).toBeLessThan(LINES / 64)
})

/** Holds lines of all kinds between lines that are written at once: each must come once, in order, at most 4,096 bytes in a write. */
const MIXED = `
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
const writeSync = fs.writeSync
let most = 0
fs.writeSync = (fd, bytes) => {
  if (bytes.length > most && bytes.indexOf(10) < bytes.length - 1) most = bytes.length
  return writeSync(fd, bytes)
}
syncBuiltinESMExports()
const { LineOutput } = await import(${JSON.stringify(new URL('../../src/observe/output.ts', import.meta.url))})
const output = new LineOutput(() => undefined)
for (let i = 0; i < 300; i++) {
  const line = i + ' ' + (i % 64 === 7 ? 'x'.repeat(5_000) : i > 200 ? 'ä'.repeat(i) : 'a'.repeat(i)) + '\\n'
  if (i % 50 === 49) output.write(line)
  else output.hold(line)
}
await output.close(60_000)
writeSync(2, String(most))
`

it('writes lines to a pipe in order, whole, and as many at a time as the pipe takes whole', async () => {
  const child = spawn(process.execPath, ['--input-type=module', '-e', MIXED], { stdio: ['ignore', 'pipe', 'pipe'] })
  const [text, most] = await Promise.all([textOf(child.stdout), textOf(child.stderr)])
  const expected = Array.from(
    { length: 300 },
    (_, i) => `${i} ${i % 64 === 7 ? 'x'.repeat(5_000) : i > 200 ? 'ä'.repeat(i) : 'a'.repeat(i)}\n`,
  )
  expect(text).toBe(expected.join(''))
  expect(Number(most)).toBeGreaterThan(2_048)
  expect(Number(most)).toBeLessThanOrEqual(4_096)
})

/** More is held than is kept while the first write lasts. Then the message of that is written from within the end of the write. */
const DROPPING = `
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
fs.write = (fd, bytes, done) => void setImmediate(() => done(null, fs.writeSync(fd, bytes)))
syncBuiltinESMExports()
const { LineOutput } = await import(${JSON.stringify(new URL('../../src/observe/output.ts', import.meta.url))})
const output = new LineOutput((dropped) => output.write('dropped ' + dropped + '\\n'))
for (let i = 0; i < 8_000; i++) output.hold('x'.repeat(999) + '\\n')
await output.close(600_000)
output.write('last\\n')
await output.close(600_000)
`

it('goes on after it had to drop lines for a file, and tells once how many', async () => {
  const file = join(newFolder(), 'log')
  const log = openSync(file, 'w')
  const child = spawn(process.execPath, ['--input-type=module', '-e', DROPPING], { stdio: ['ignore', log, 'pipe'] })
  const [said, [code]] = await Promise.all([textOf(child.stderr!), once(child, 'close') as Promise<[number]>])
  closeSync(log)
  expect({ said, code }).toEqual({ said: '', code: 0 })
  const lines = readFileSync(file, 'utf8').split('\n')
  const kept = lines.filter((line) => line.startsWith('x')).length
  expect(lines.filter((line) => !line.startsWith('x'))).toEqual([`dropped ${8_000 - kept}`, 'last', ''])
})
