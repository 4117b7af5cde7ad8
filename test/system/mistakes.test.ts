import { once } from 'node:events'
import { ServerResponse } from 'node:http'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Capture } from '../../src/cache/capture.ts'
import { Flights } from '../../src/cache/flights.ts'
import { MemoryStore } from '../../src/cache/memory-store.ts'
import { CredentialPool } from '../../src/credentials/pool.ts'
import { EchoGuard, Scrub } from '../../src/credentials/scrub.ts'
import { SigV4Credential } from '../../src/credentials/sigv4.ts'
import { HeaderCredential } from '../../src/credentials/static.ts'
import { Secret } from '../../src/schema/secret.ts'
import { CachePlace } from '../../src/gateway/cache-place.ts'
import { Call } from '../../src/gateway/call.ts'
import { LimitWatch } from '../../src/gateway/limit-watch.ts'
import { RequestCredential } from '../../src/gateway/request-credential.ts'
import { Cancellation } from '../../src/time/cancellation.ts'
import { Tunnels } from '../../src/gateway/tunnel.ts'
import { Upgrade } from '../../src/gateway/upgrade.ts'
import { CallMetrics, ClassMetrics } from '../../src/observe/call-metrics.ts'
import { CounterSeries, HistogramSeries } from '../../src/observe/series.ts'
import { FairScheduler } from '../../src/queue/fair-scheduler.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { Peers } from '../../src/queue/peers.ts'
import { AvailabilityForecast } from '../../src/queue/forecast.ts'
import { Permit } from '../../src/queue/permit.ts'
import { ClientQueues } from '../../src/queue/client-queues.ts'
import { VirtualService } from '../../src/queue/fair-share.ts'
import { Breaker } from '../../src/resilience/breaker.ts'
import { Breakers } from '../../src/resilience/breakers.ts'
import { Hedging } from '../../src/resilience/hedging.ts'
import { RetryBudget } from '../../src/resilience/retry-budget.ts'
import { RequestBody } from '../../src/upstream/body.ts'
import { RecentUse } from '../../src/usage/recent-use.ts'
import { Tally } from '../../src/usage/tally.ts'
import { CallUsage, Spending, Usage } from '../../src/usage/usage.ts'
import { Frames } from '../../src/upstream/frames.ts'
import { Transport } from '../../src/upstream/transport.ts'
import { type AccessLine, createLog } from '../../src/observe/log.ts'
import { newFolder, startGateway, type TestGateway } from '../support/gateway.ts'
import { RawClient } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { Mistake, Steps } from '../support/throwing.ts'

/** Where a call passes from its admission to its end. Not what gives back: that can't be given back. */
function watchAll(hasQueue = false): Steps {
  const steps = new Steps()
  steps.watch(Call)
  steps.watch(Cancellation, 'cancel')
  steps.watch(Permit, 'leave', 'abandon', 'refund', 'giveUp')
  steps.watch(Breaker)
  steps.watch(Breakers)
  steps.watch(Hedging)
  steps.watch(RetryBudget)
  steps.watch(RequestCredential)
  steps.watch(CredentialPool)
  steps.watch(HeaderCredential)
  steps.watch(SigV4Credential)
  steps.watch(Secret)
  steps.watch(EchoGuard)
  steps.watch(Scrub)
  steps.watch(Transport, 'close')
  steps.watch(RequestBody, 'release')
  steps.watch(ClassMetrics)
  steps.watch(CallMetrics)
  steps.watch(Spending)
  steps.watch(CallUsage)
  // What is counted is taken in the background, at any time.
  steps.watch(Usage, 'isNewDay', 'take')
  steps.watch(Tally, 'take')
  steps.watch(RecentUse)
  steps.watch(CounterSeries)
  steps.watch(HistogramSeries)
  steps.watch(LimitWatch)
  steps.watch(MemoryLedger, 'leave', 'refund', 'abandon', 'commit')
  steps.watch(MemoryStore)
  steps.watch(Flights)
  steps.watch(Capture)
  steps.watch(CachePlace)
  steps.watch(Tunnels, 'delete')
  steps.watch(Upgrade)
  steps.watch(Frames)
  steps.watchObject(ServerResponse.prototype, 'ServerResponse', ['writeHead', 'write', 'end', 'flushHeaders'])
  if (hasQueue) {
    steps.watch(FairScheduler)
    steps.watch(AvailabilityForecast)
    steps.watch(VirtualService)
    steps.watch(Peers)
    steps.watch(ClientQueues, 'remove')
  }
  return steps
}

interface Case {
  readonly name: string
  /** Of the upstream, besides what all cases have. */
  readonly upstream?: object
  readonly account?: object
  /** How the upstream answers the request of that number, counted from the beginning of the call. */
  readonly answer?: (socket: Socket, head: string, number: number) => void
  readonly request?: string
  /** What happens in the queue are steps, too. */
  readonly hasQueue?: boolean
  /** Makes the gateway ready for the call. */
  readonly before?: (world: World) => Promise<void>
  /** Makes the call, if that is more than to send the request and to wait for its end. */
  readonly make?: (world: World) => Promise<void>
  /** How often the upstream may get it. */
  readonly most?: number
}

interface World {
  readonly gateway: TestGateway
  readonly clock: SimulatedClock
  readonly sockets: Set<Socket>
  /** How the upstream answers for now, in the place of the case's own way. */
  answer: ((socket: Socket, head: string) => void) | undefined
  ask(request?: string): Promise<string>
  readonly lines: readonly AccessLine[]
  /** Those that were logged. */
  readonly mistakes: readonly string[]
  /** How many requests the upstream has had since the call began. */
  readonly requests: number
  begin(): void
  /** Of the call. */
  readonly number: number
}

const PLACES = 2
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone'
const GET = 'GET /api/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
const HANDSHAKE = [
  'GET /api/ws HTTP/1.1',
  ...['Host: x', 'Connection: Upgrade', 'Upgrade: websocket'],
  ...['Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13', '', ''],
].join('\r\n')
const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
/** A frame Close without a status. */
const CLOSE = Buffer.from([0x88, 0x00])
const MASKED_CLOSE = Buffer.from([0x88, 0x80, 0, 0, 0, 0])

const sigv4 = {
  type: 'sigv4',
  accessKeyId: 'AKIDEXAMPLE12345',
  secretAccessKey: 'signing-secret',
  region: 'eu-west-1',
  service: 'execute-api',
}

const CASES: readonly Case[] = [
  { name: 'a read' },
  { name: 'a read that is signed', account: { credential: sigv4 } },
  {
    name: 'a write',
    request: 'POST /api/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody',
  },
  {
    name: 'an upload that streams',
    request:
      'PUT /api/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n',
    upstream: { retry: { retries: 0 } },
  },
  {
    name: 'a response in pieces, with trailers and what the gateway looks for in it',
    answer: (socket) => {
      socket.write(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-RateLimit-Limit: 1000000\r\nX-RateLimit-Remaining: 900000\r\n\r\n',
      )
      setTimeout(() => socket.write('4\r\ndone\r\n0\r\nX-End: yes\r\n\r\n'), 5)
    },
  },
  {
    name: 'a call that is sent again',
    answer: (socket, _, number) =>
      void socket.write(number === 1 ? 'HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno' : OK),
    most: 2,
  },
  {
    name: 'a call that is refused upstream',
    answer: (socket) => void socket.write('HTTP/1.1 429 No\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\nno'),
    upstream: { retry: { retries: 0 } },
  },
  {
    name: 'a call whose connection breaks',
    answer: (socket) => void socket.destroy(),
    upstream: { retry: { retries: 0 } },
  },
  {
    name: 'a call with one credential of several',
    account: {
      credentials: [
        { name: 'a', type: 'bearer', value: 'token-of-a' },
        { name: 'b', type: 'bearer', value: 'token-of-b' },
      ],
    },
    answer: (socket, _, number) =>
      void socket.write(number === 1 ? 'HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n' : OK),
    most: 2,
  },
  {
    name: 'a probe of the breaker',
    upstream: { breaker: { failures: 1, probes: 1, reset: '1s', maxReset: '1s' }, retry: { retries: 0 } },
    async before(world) {
      world.answer = (socket) => void socket.write('HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n')
      await world.ask()
      world.answer = undefined
      await world.clock.advance(1_001)
    },
  },
  {
    name: 'a read with a second attempt beside it',
    upstream: { hedge: { after: '50ms' }, retry: { retries: 0 } },
    answer: (socket, _, number) => void (number === 2 && socket.write(OK)),
    async make({ clock, ask }) {
      const answer = ask()
      let isOver = false
      void answer.then(() => (isOver = true))
      // If there is no second attempt the first one ends with its time.
      for (let i = 0; !isOver; i++) {
        await new Promise((resolve) => setTimeout(resolve, 2))
        await clock.advance(i < 20 ? 50 : 10_000)
      }
      await answer
    },
    most: 2,
  },
  {
    name: 'a read that is cached',
    upstream: { routes: [{ method: ['GET'], path: '/k*', class: 'read', cache: { private: true } }] },
    request: GET.replace('/k', '/k/NUMBER'),
    answer: (socket) => void socket.write(OK.replace('OK', 'OK\r\nCache-Control: max-age=60')),
  },
  {
    name: 'a cached read that is asked about',
    upstream: { routes: [{ method: ['GET'], path: '/k*', class: 'read', cache: { private: true } }] },
    request: GET.replace('/k', '/k/NUMBER'),
    answer: (socket, head) =>
      void socket.write(
        /if-none-match/i.test(head)
          ? 'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n'
          : OK.replace('OK', 'OK\r\nCache-Control: max-age=1\r\nETag: "1"'),
      ),
    async before({ ask, clock }) {
      await ask()
      await clock.advance(5_000)
    },
  },
  {
    name: 'a cached read for which another waits',
    upstream: { routes: [{ method: ['GET'], path: '/k*', class: 'read', cache: { private: true } }] },
    answer: (socket) => void socket.write(OK.replace('OK', 'OK\r\nCache-Control: max-age=60')),
    async make({ ask, number }) {
      const request = GET.replace('/k', `/k/${number}`)
      const answers = await Promise.all([ask(request), ask(request)])
      // The mistake of one is not the other's, but for one that is made while it is told.
      expect(answers.filter((answer) => answer.startsWith('HTTP/1.1 200')).length).toBeGreaterThan(0)
    },
    most: 2,
  },
  {
    name: 'a call that waits for its turn',
    upstream: { limits: { read: [{ requests: 10, window: '10s' }], write: [] }, queue: { maxWait: '30s' } },
    hasQueue: true,
    async before({ ask, clock }) {
      await clock.advance(11_000)
      for (let i = 0; i < 10; i++) await ask()
    },
    async make({ ask, clock }) {
      const answer = ask()
      let isOver = false
      void answer.then(() => (isOver = true))
      for (let i = 0; i < 500 && !isOver; i++) {
        await new Promise((resolve) => setTimeout(resolve, 1))
        await clock.advance(1_000)
      }
      await answer
      await clock.advance(11_000)
    },
  },
  {
    name: 'a WebSocket',
    request: HANDSHAKE,
    answer(socket) {
      socket.write(SWITCH)
      socket.on('data', (chunk: Buffer) => void (chunk[0] === 0x88 && socket.end(CLOSE)))
    },
    async make({ gateway, clock }) {
      const client = await RawClient.connect(gateway.url)
      client.write(HANDSHAKE)
      client.socket.on('data', () => void (client.socket.writable && client.socket.write(MASKED_CLOSE)))
      client.socket.on('end', () => client.socket.end())
      for (let i = 0; i < 200 && !client.isClosed; i++) {
        await new Promise((resolve) => setTimeout(resolve, 1))
        if (i > 20) await clock.advance(3_000)
      }
      client.socket.destroy()
    },
  },
]

async function startWorld({ upstream = {}, account, answer = (socket) => void socket.write(OK) }: Case) {
  const clock = new SimulatedClock()
  const sockets = new Set<Socket>()
  let requests = 0
  const server = createServer((socket) => {
    sockets.add(socket)
    let isTunnel = false
    socket.on('error', () => undefined)
    socket.on('close', () => sockets.delete(socket))
    let received = ''
    socket.on('data', (chunk) => {
      if (isTunnel) return
      received += chunk.toString('latin1')
      const [head, body] = received.split('\r\n\r\n', 2)
      if (body === undefined) return
      if (/transfer-encoding/i.test(head!) && !received.endsWith('0\r\n\r\n')) return
      if (body.length < Number(/content-length: (\d+)/i.exec(head!)?.[1] ?? 0)) return
      isTunnel = /upgrade: websocket/i.test(head!)
      received = ''
      requests++
      if (world.answer === undefined) answer(socket, head!, requests)
      else world.answer(socket, head!)
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const limits = ['read', 'write'].map((name) => [
    name,
    [{ requests: 1_000_000, window: '5s' }, { concurrent: PLACES }],
  ])
  const lines: AccessLine[] = []
  const mistakes: string[] = []
  const log = createLog({ level: 'silent', format: 'json' })
  log.logger.error = ({ err }: { err: unknown }) => void (err instanceof Mistake && mistakes.push(err.message))
  const gateway = await startGateway(
    {
      server: { port: 0 },
      admin: { port: 0 },
      store: { dir: newFolder() },
      upstreams: {
        api: {
          url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
          maxWebSockets: 1,
          accounts: { main: account ?? { credential: { value: 'secret-of-the-vendor' } } },
          limits: Object.fromEntries(limits) as object,
          concurrency: { read: PLACES, write: PLACES },
          queue: { maxWait: '2s' },
          retry: { retries: 2, baseDelay: '1ms', maxDelay: '1ms' },
          breaker: { failures: 1_000 },
          throttle: { pause: '0ms' },
          ...upstream,
        },
      },
    },
    { clock, random: () => 0, log: { ...log, access: (line) => void lines.push(line) } },
  )
  let number = 0
  const world: World = {
    lines,
    mistakes,
    gateway,
    clock,
    sockets,
    answer: undefined,
    begin() {
      requests = 0
      number++
    },
    get number() {
      return number
    },
    get requests() {
      return requests
    },
    async ask(request = GET) {
      const client = await RawClient.connect(gateway.url)
      client.write(request.replace('NUMBER', String(number)))
      const received = await client.closed()
      client.socket.destroy()
      return received
    },
  }
  return world
}

const OTHER = 'GET /api/other HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Sluice-Max-Wait: 0\r\n\r\n'

/** The breaker lets calls through, and as many as there are places can be in flight, each with a credential of its own. */
async function expectAllPlaces(world: World, where: string): Promise<void> {
  // No credential of a pool is left out any more.
  await world.clock.advance(61_000)
  world.answer = (socket) => void socket.write(OK)
  expect(await world.ask(OTHER), where).toMatch(/^HTTP\/1\.1 200/)
  const held: { readonly socket: Socket; readonly head: string }[] = []
  world.answer = (socket, head) => void held.push({ socket, head })
  const answers = Promise.all(Array.from({ length: PLACES }, () => world.ask(OTHER)))
  let isOver = false
  void answers.then(() => (isOver = true))
  await expect.poll(() => held.length === PLACES || isOver).toBe(true)
  for (const { socket } of held) socket.write(OK)
  for (const answer of await answers) expect(answer, where).toMatch(/^HTTP\/1\.1 200/)
  const tokens = held.map(({ head }) => /^authorization: Bearer (.*)$/im.exec(head)?.[1])
  if (tokens[0] !== undefined) expect(new Set(tokens).size, where).toBe(PLACES)
  world.answer = undefined
}

describe('an exception at any step leaves nothing held, and the next call is answered', () => {
  it.each(CASES)(
    '$name',
    async (one) => {
      const steps = watchAll(one.hasQueue)
      const world = await startWorld(one)
      const seen: string[] = []
      for (let step = 0; ; step++) {
        world.begin()
        await one.before?.(world)
        world.begin()
        const [lines, mistakes] = [world.lines.length, world.mistakes.length]
        let received: string | undefined
        const name = await steps.run(step, async () => {
          if (one.make === undefined) received = await world.ask(one.request)
          else await one.make(world)
          // Its line in the log is missing only where the mistake was made with that, and is told of itself.
          const isTold = () => world.lines.length > lines || world.mistakes.length > mistakes
          await expect.poll(isTold).toBe(true)
        })
        if (name === undefined) break
        seen.push(name)
        const where = `${step}: ${name}`
        expect(world.mistakes.slice(mistakes), where).toEqual([name])
        expect(world.requests, where).toBeLessThanOrEqual(one.most ?? 1)
        if (received !== undefined)
          expect(received, where).toMatch(/^$|^HTTP\/1\.1 (?:200|429|502|500[^]*X-Sluice-Error: internal)/)
        await expectAllPlaces(world, where)
      }
      expect(seen.length).toBeGreaterThan(20)
    },
    180_000,
  )
})
