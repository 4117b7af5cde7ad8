import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { stringify } from 'yaml'
import { bundle } from '../../deploy/bundle.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'
import { load, startUpstream } from './driver.ts'
import { cpuMs, residentKb } from './process-tree.ts'

/**
 * `npm run bench:start`: the time until a gateway listens and the processor time that it takes, from source and from built code,
 * beside `node -e ''` and a bare Fastify of the same rounds, whose order changes. Medians, with the lowest and the highest. Then the
 * resident memory after a start, and after many calls, beside the plugin, undici and a client of Redis that do nothing
 * else; both times 40 seconds later, when V8 has given back what it does not need, or after `--idle` seconds. Each
 * program has run before, so that Node has compiled its code. Linux only.
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    calls: { type: 'string', default: '200000' },
    idle: { type: 'string', default: '40' },
  },
})
const IDLE_MS = Number(values.idle) * 1_000
/** What a gateway is made of, doing nothing but forwarding. Nothing of ours can hold less. */
const BARE = `const app = require('fastify')()
require('undici'), require('ioredis')
app.register(require('@fastify/http-proxy'), { upstream: process.env.UPSTREAM })
app.listen({ port: 0 }).then((url) => console.log(JSON.stringify({ msg: 'listening', url })))`
const ROOT = resolve(import.meta.dirname, '../..')

using folder = temporaryFolder('bench-start')
symlinkSync(join(ROOT, 'node_modules'), join(folder.path, 'node_modules'))
// As in the package. Without it Node has to find out for each file what it is.
writeFileSync(join(folder.path, 'package.json'), '{"type":"module"}')
cpSync(join(ROOT, 'bin'), join(folder.path, 'bin'), { recursive: true })
await bundle(join(folder.path, 'dist'), JSON.stringify(pathToFileURL(join(ROOT, 'src/main.ts'))))
const upstream = await startUpstream()
const file = join(folder.path, 'sluice.yaml')
const limits = { read: [{ requests: 1_000_000_000, window: '60s' }], write: [] }
const x = { url: `http://127.0.0.1:${upstream.port}`, accounts: { a: { credential: { value: 'secret' } } }, limits }
const config = { server: { port: 0 }, admin: { port: 0 }, log: { sample: '0.1%' }, upstreams: { x } }
writeFileSync(file, stringify(config))
const counter = join(folder.path, 'count-modules.mjs')
writeFileSync(
  counter,
  `import { registerHooks } from 'node:module'
const seen = new Set()
registerHooks({ load: (url, context, next) => (seen.add(url), next(url, context)) })
process.on('SIGUSR2', () => process.stdout.write('modules ' + seen.size + '\\n'))`,
)

const start = ['start', '--config', file]
const programs = {
  "node -e ''": ['-e', "console.log('listening'); setInterval(() => {}, 1e6)"],
  'bare Fastify': ['-e', "require('fastify')().listen({ port: 0 }).then(() => console.log('listening'))"],
  'from source': [join(ROOT, 'bin/sluice.cjs'), ...start],
  built: [join(folder.path, 'bin/sluice.cjs'), ...start],
} as const
type Name = keyof typeof programs
const names = Object.keys(programs) as Name[]

interface Start {
  readonly ready: number
  readonly cpu: number
}
const starts = new Map<Name, Start[]>(names.map((name) => [name, []]))
for (let round = 0; round <= Number(values.rounds); round++) {
  for (const name of round % 2 === 0 ? names : names.toReversed()) {
    const { child, ready } = await run(programs[name])
    const cpu = cpuMs([child.pid!])
    await end(child)
    if (round > 0) starts.get(name)!.push({ ready, cpu })
  }
}
const median = (name: Name, what: keyof Start): number =>
  sortedOf(name, what)[Math.floor(starts.get(name)!.length / 2)]!
const rows = names.map((name) => {
  const told = (what: keyof Start): string => {
    const sorted = sortedOf(name, what)
    return `${median(name, what).toFixed(0)} (${sorted[0]!.toFixed(0)}-${sorted.at(-1)!.toFixed(0)})`
  }
  const times = (what: keyof Start, other: Name): string => (median(name, what) / median(other, what)).toFixed(1)
  return [
    name,
    {
      'ready, ms': told('ready'),
      'of node': times('ready', names[0]!),
      'of Fastify': times('ready', names[1]!),
      'processor, ms': told('cpu'),
      'processor of Fastify': times('cpu', names[1]!),
    },
  ]
})
console.table(Object.fromEntries(rows))

bar('built: ready', median('built', 'ready'), { atMost: 500 }, 'ms')
bar('from source: ready', median('from source', 'ready'), { atMost: 900 }, 'ms')

for (const [name, args] of Object.entries({ ...programs, 'its packages alone': ['-e', BARE] }).slice(2)) {
  const counted = await run(['--import', counter, ...args])
  counted.child.kill('SIGUSR2')
  const modules = /modules (\d+)/.exec(await counted.until(/modules \d+/))?.[1]
  await end(counted.child)
  const { child, until } = await run(args)
  const { url } = JSON.parse(/^.*"listening".*$/m.exec(await until(/"listening"/))![0]) as { url: string }
  await pause(IDLE_MS)
  const idle = residentKb(child.pid!) / 1_024
  let calls = 0
  let failures = 0
  while (calls < Number(values.calls)) {
    const done = await load(Number(new URL(url).port), '/x/thing', 32, 1_000)
    calls += done.requests
    failures += done.failures
  }
  await pause(IDLE_MS)
  const after = residentKb(child.pid!) / 1_024
  await end(child)
  const told = `${idle.toFixed(0)} MB at rest, ${after.toFixed(0)} MB after ${calls} calls (${failures} failed)`
  console.log(`${name}: ${modules} modules, ${told}`)
  if (!(name in programs)) continue
  bar(`${name}: memory at rest`, idle, { atMost: 110 }, 'MB')
  bar(`${name}: memory after ${values.calls} calls, times that at rest`, after / idle, { atMost: 1.3 }, '')
}
upstream.server.close()

function sortedOf(name: Name, what: keyof Start): number[] {
  return starts
    .get(name)!
    .map((one) => one[what])
    .sort((a, b) => a - b)
}

/** Starts a program in its folder, and waits until it says that it listens. */
async function run(args: readonly string[]) {
  const begun = performance.now()
  const env = { ...process.env, UPSTREAM: x.url }
  const child = spawn(process.execPath, args, { cwd: folder.path, env, stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout.on('data', (chunk) => void (said += String(chunk)))
  const until = async (pattern: RegExp): Promise<string> => {
    while (!pattern.test(said)) {
      if (child.exitCode !== null) throw new Error(`it ended: ${said}`)
      await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])
    }
    return said
  }
  await until(/listening/)
  return { child, until, ready: performance.now() - begun }
}

async function end(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM')
  await once(child, 'exit')
}
