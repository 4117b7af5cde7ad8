import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { FileWatch, stateOf } from '../../src/files/watch.ts'
import { newFolder } from '../support/gateway.ts'

/** A file is looked at once more after it was read. What happens later has to be told. */
const untilOnlyTold = () => new Promise((resolve) => void setTimeout(resolve, 300))

/** Follows one file as a reload does, and lists whether it was there each time. */
async function seenOf(file: string): Promise<readonly string[]> {
  const watch = new FileWatch()
  onTestFinished(() => watch.close())
  const seen: string[] = []
  const load = () =>
    watch.follow((onFile) => {
      onFile(file)
      seen.push(stateOf(file) === 'none' ? 'gone' : 'there')
    })
  await load()
  watch.start(() => void load())
  return seen
}

it.each([
  ['moved away', (folder: string) => renameSync(folder, `${folder}.old`)],
  ['removed', (folder: string) => rmSync(folder, { recursive: true })],
])('a file whose folder was %s is read when it is there again, and followed from then on', async (_, take) => {
  const file = join(newFolder(), 'conf', 'sluice.yaml')
  mkdirSync(dirname(file))
  writeFileSync(file, 'one')
  const seen = await seenOf(file)
  take(dirname(file))
  await expect.poll(() => seen).toEqual(['there', 'gone'])
  await untilOnlyTold()
  mkdirSync(dirname(file))
  await untilOnlyTold()
  writeFileSync(file, 'two')
  await expect.poll(() => seen).toEqual(['there', 'gone', 'there'])
  await untilOnlyTold()
  writeFileSync(file, 'three, which is longer')
  await expect.poll(() => seen).toEqual(['there', 'gone', 'there', 'there'])
})

it('a file of which several folders are missing is read when they are made, one after the other', async () => {
  const folder = newFolder()
  const file = join(folder, 'etc', 'conf', 'sluice.yaml')
  const seen = await seenOf(file)
  for (const made of [join(folder, 'etc'), dirname(file)]) {
    await untilOnlyTold()
    mkdirSync(made)
  }
  await untilOnlyTold()
  writeFileSync(file, 'one')
  await expect.poll(() => seen).toEqual(['gone', 'there'])
})

it('a file is read when another folder was put in the place of its own, or a link to it leads elsewhere', async () => {
  const folder = newFolder()
  for (const version of ['v1', 'v2', 'v3']) {
    mkdirSync(join(folder, version))
    writeFileSync(join(folder, version, 'sluice.yaml'), version)
  }
  symlinkSync('v1', join(folder, 'conf'))
  const seen = await seenOf(join(folder, 'conf', 'sluice.yaml'))
  await untilOnlyTold()
  symlinkSync('v2', join(folder, 'conf.new'))
  renameSync(join(folder, 'conf.new'), join(folder, 'conf'))
  await expect.poll(() => seen).toEqual(['there', 'there'])
  await untilOnlyTold()
  renameSync(join(folder, 'conf'), join(folder, 'conf.old'))
  renameSync(join(folder, 'v3'), join(folder, 'conf'))
  await expect.poll(() => seen).toEqual(['there', 'there', 'there'])
  await untilOnlyTold()
  writeFileSync(join(folder, 'conf', 'sluice.yaml'), 'longer than before')
  await expect.poll(() => seen).toEqual(['there', 'there', 'there', 'there'])
})
