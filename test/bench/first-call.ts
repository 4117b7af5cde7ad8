import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Pool } from 'undici'
import { stringify } from 'yaml'
import { makeCertificates } from '../support/certificates.ts'
import { findRedis } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'

/**
 * `npm run bench:first-call`: how long the first call of a gateway that has just become ready takes, and its twentieth. Each
 * start is a process of its own. The medians, and the lowest and the highest, in milliseconds. The first call through TLS has no
 * bar: its handshake loads code that nothing loads before.
 */
const { values } = parseArgs({ options: { starts: { type: 'string', default: '5' } } })
const CALLS = 20
/** Half of the time that Redis has for its answer before a call is refused. */
const MOST_MS = 25

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const certificates = makeCertificates(['localhost'])
const answer: RequestListener = (_, response) => response.setHeader('content-type', 'application/json').end('{}')
const plain = createServer(answer).listen(0, '127.0.0.1')
const secure = createSecureServer(
  { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') },
  answer,
).listen(0, '127.0.0.1')
await Promise.all([once(plain, 'listening'), once(secure, 'listening')])
const redis = await findRedis()
const portOf = (server: typeof plain): number => (server.address() as AddressInfo).port
const upstreams = {
  http: { url: `http://127.0.0.1:${portOf(plain)}` },
  https: { url: `https://localhost:${portOf(secure)}`, tls: { ca: certificates.read('ca.pem') } },
}
const stores = {
  embedded: { kind: 'memory' },
  Redis: { kind: 'redis', url: redis.url, prefix: `first-call-${process.pid}` },
}
try {
  // Both processes have run before: this one, and a gateway whose code Node then has in its cache.
  await callsOf(stores.embedded, upstreams.http)
  const rows: Record<string, object> = {}
  const firsts: [string, number][] = []
  for (const [store, storeConfig] of Object.entries(stores)) {
    for (const [upstream, upstreamConfig] of Object.entries(upstreams)) {
      const starts: number[][] = []
      for (let n = 0; n < Number(values.starts); n++) starts.push(await callsOf(storeConfig, upstreamConfig))
      const firstMs = starts.map((calls) => calls[0]!)
      const first = spread(firstMs)
      if (upstream === 'http') firsts.push([store, median(firstMs)])
      const last = spread(starts.map((calls) => calls.at(-1)!))
      rows[`${store}, ${upstream} upstream`] = { 'first call': first, [`call ${CALLS}`]: last }
    }
  }
  console.table(rows)
  for (const [store, ms] of firsts) bar(`the first call, ${store}`, ms, { atMost: MOST_MS }, 'ms')
} finally {
  for (const server of [plain, secure]) {
    server.closeAllConnections()
    server.close()
  }
  await redis.stop()
  certificates.remove()
}

/** Starts a gateway, and calls it one after the other as soon as it is ready; how long each took. */
async function callsOf(store: object, upstream: object): Promise<number[]> {
  const folder = temporaryFolder('first-call')
  const limits = { read: [{ requests: 1_000, window: '60s' }] }
  const config = {
    server: { port: 0 },
    admin: { port: 0 },
    store,
    upstreams: { x: { ...upstream, accounts: { a: { credential: { value: 'secret' } } }, limits } },
  }
  writeFileSync(join(folder.path, 'sluice.yaml'), stringify(config))
  const child = spawn(process.execPath, [main, 'start'], { cwd: folder.path, stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const { url, admin } = await listening(createInterface({ input: child.stdout }))
    while (!(await fetch(`${admin}/readyz`)).ok);
    const client = new Pool(url)
    const took: number[] = []
    for (let n = 0; n < CALLS; n++) {
      const start = performance.now()
      const { statusCode, body } = await client.request({ method: 'GET', path: '/x/thing' })
      await body.dump()
      took.push(performance.now() - start)
      if (statusCode !== 200) throw new Error(`a call ended with ${statusCode}`)
    }
    await client.close()
    return took
  } finally {
    child.kill('SIGTERM')
    await once(child, 'exit')
    folder.remove()
  }
}

async function listening(lines: AsyncIterable<string>): Promise<{ url: string; admin: string }> {
  for await (const line of lines) if (line.includes('"msg":"listening"')) return JSON.parse(line) as never
  throw new Error('the gateway did not start')
}

function spread(all: readonly number[]): string {
  const sorted = all.toSorted((a, b) => a - b)
  return `${median(sorted).toFixed(1)} (${sorted[0]!.toFixed(1)}-${sorted.at(-1)!.toFixed(1)})`
}

function median(all: readonly number[]): number {
  return all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)]!
}
