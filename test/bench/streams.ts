import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { download, startStreamUpstream, type Streamed, upload } from '../support/stream-load.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'

/** `npm run bench:streams`: how much memory a gateway process needs for bodies of 5 GB, up and down, one after the other. */
const { values } = parseArgs({ options: { gigabytes: { type: 'string', default: '5' } } })
const bytes = Number(values.gigabytes) * 1e9
const upstream = await startStreamUpstream()
const folder = temporaryFolder('streams')
const file = join(folder.path, 'sluice.yaml')
const x = { url: upstream.url, accounts: { main: {} }, limits: { read: [], write: [] } }
writeFileSync(file, stringify({ server: { port: 0 }, admin: { port: 0 }, upstreams: { x } }))
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const child = spawn(process.execPath, [main, 'start', '--config', file], {
  cwd: folder.path,
  stdio: ['ignore', 'pipe', 'inherit'],
})
const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
const gateway = { url: (JSON.parse(line) as { url: string }).url, pid: child.pid! }
for (const stream of [upload, download]) await stream(gateway, '/x/warm-up', 64e6)
for (const stream of [upload, download]) report(stream.name, await stream(gateway, '/x/body', bytes))
child.kill('SIGTERM')
await once(child, 'exit')
upstream.stop()
folder.remove()

function report(name: string, { bytes: arrived, rssBefore, rssPeak }: Streamed): void {
  const mebibytes = (n: number): string => (n / 1_048_576).toFixed(1)
  console.log(
    `${name}: ${arrived} of ${bytes} bytes arrived; memory ${mebibytes(rssBefore)} MiB before, ` +
      `${mebibytes(rssPeak)} MiB at its peak: ${mebibytes(rssPeak - rssBefore)} MiB more`,
  )
  if (arrived !== bytes) process.exitCode = 1
  bar(`memory for a body, ${name}`, (rssPeak - rssBefore) / 1e6, { atMost: 64 }, 'MB')
}
