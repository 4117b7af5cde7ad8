/**
 * Prints which functions a plain GET passes, in the order in which each was called first: a line for each, its file and its
 * name. Without arguments all functions of `src` are watched; else those that are given, as `src/gateway/forward.ts#forward`.
 */
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { Session } from 'node:inspector'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { runGateway } from '../../src/process/run.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
/** A function, or a method of a class: its name is the first group that matched. */
const FUNCTION = /^(?:export )?(?:async )?function (\w+)\(|^ {2}(?:async )?(?:static )?(#?\w+)\([^]*\{$/

const passed: string[] = []
Object.assign(globalThis, { pass: (name: string) => passed.push(name) })

/** A breakpoint whose condition notes that it was reached, and never holds. */
function watch(session: Session, file: string, names: ReadonlySet<string> | undefined): void {
  const lines = readFileSync(join(ROOT, file), 'utf8').split('\n')
  for (const [lineNumber, line] of lines.entries()) {
    const [, name = '', method = name] = FUNCTION.exec(line) ?? []
    const step = `${file}#${method}`
    if (method === '' || ['if', 'for', 'while', 'switch', 'constructor'].includes(method)) continue
    if (names !== undefined && !names.has(step)) continue
    const condition = `(pass(${JSON.stringify(step)}), false)`
    session.post('Debugger.setBreakpointByUrl', { url: `file://${ROOT}${file}`, lineNumber, condition })
  }
}

const upstream = createServer((_, response) => void response.end('{}'))
await new Promise<void>((resolve) => void upstream.listen(0, '127.0.0.1', resolve))
const { port } = upstream.address() as { port: number }
const dir = mkdtempSync(join(tmpdir(), 'sluice-walk-'))
const accounts = { prod: { id: 'acct1234', credential: { value: 'pat.acct1234.id.secret' } } }
const config = checkConfig(
  {
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir },
    upstreams: { harness: { preset: 'harness', url: `http://127.0.0.1:${port}`, accounts } },
  },
  'walk',
)
const gateway = await runGateway(config, { log: createLog({ level: 'silent', format: 'json' }) })
const get = async (): Promise<void> => void (await (await fetch(`${gateway.url}/harness/ng/api/projects`)).text())
await get() // what is made with the first call is no part of the walk
const wanted = process.argv.length > 2 ? new Set(process.argv.slice(2)) : undefined
const session = new Session()
session.connect()
session.post('Debugger.enable')
for (const file of globSync('src/**/*.ts', { cwd: ROOT })) watch(session, file, wanted)
await get()
session.disconnect()
await gateway.stop()
upstream.close()
rmSync(dir, { recursive: true })
console.log([...new Set(passed)].join('\n'))
