import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { temporaryFolder } from '../support/temporary-folder.ts'

const root = new URL('../..', import.meta.url).pathname

it('the program keeps what was compiled of it beside itself, and starts where it can’t', async () => {
  using temporary = temporaryFolder('compile-cache')
  const folder = temporary.path
  const modules = join(folder, 'node_modules')
  mkdirSync(modules)
  for (const name of readdirSync(join(root, 'node_modules'))) {
    if (!name.startsWith('.')) symlinkSync(join(root, 'node_modules', name), join(modules, name))
  }
  for (const name of ['src', 'package.json']) cpSync(join(root, name), join(folder, name), { recursive: true })
  const env = { ...process.env, NODE_COMPILE_CACHE: undefined, NODE_DISABLE_COMPILE_CACHE: undefined }
  const version = async (): Promise<string> =>
    (await promisify(execFile)(process.execPath, [join(folder, 'src/main.ts'), '--version'], { env })).stdout
  const first = await version()
  const kept = join(modules, '.cache')
  expect(readdirSync(kept, { recursive: true }).length).toBeGreaterThan(10)
  expect(await version()).toBe(first)
  rmSync(kept, { recursive: true })
  writeFileSync(kept, 'no folder')
  expect(await version()).toBe(first)
})
