import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { globSync, mkdtempSync, rmSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'

/**
 * Fills the compile cache of the program that it lies beside, for an image: in a container nothing can be written there, so each start
 * would compile everything anew. Starts the demo once, which has Node compile what a call needs, and then loads all other modules. Must run as
 * the user and with the options of Node that the program runs with: Node keeps a cache for each.
 */
const ROOT = resolve(import.meta.dirname, '..')
const CACHE = join(ROOT, 'node_modules/.cache')
const LONGEST_MS = 60_000
const PROGRAM = [...process.execArgv, join(ROOT, 'bin/sluice.cjs')]

const folder = mkdtempSync(join(CACHE, 'demo-'))
// It keeps its quotas in the folder that it runs in.
const options = { cwd: folder, timeout: LONGEST_MS, killSignal: 'SIGKILL' } as const
const demo = spawn(process.execPath, [...PROGRAM, 'demo', '--port', '0', '--admin-port', '0'], options)
demo.stderr.resume()
const ended = once(demo, 'exit')
const said: string[] = []
for await (const line of createInterface({ input: demo.stdout })) {
  said.push(line)
  if (line.includes('"listening"')) demo.kill()
}
const [code] = (await ended) as [number | null]
rmSync(folder, { recursive: true })
if (code !== 0) throw new Error(`the demo ended with ${code}, and had said:\n${said.join('\n')}`)

enableCompileCache(join(CACHE, 'compile'))
for (const file of globSync('src/**/*.ts', { cwd: ROOT })) if (file !== 'src/main.ts') await import(join(ROOT, file))
// To load main.ts is to run it.
const { status } = spawnSync(process.execPath, [...PROGRAM, '--version'], { stdio: 'ignore' })
if (status !== 0) throw new Error(`--version ended with ${status}`)
