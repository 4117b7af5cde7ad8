import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Agent, request } from 'undici'
import { stringify } from 'yaml'
import { hashKey } from '../../src/clients/keys.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'
import { get, openLoad } from './driver.ts'
import { type Started, startProgram } from './started.ts'

/** No turn of the event loop may take longer, in milliseconds of processor time. */
const MOST_MS = 20
/** What disturbs goes on at least this long, and so often one after the other. */
const EACH_MS = 1_500
const CALLS_PER_SECOND = 200
const CLIENTS = 150
const ACCOUNTS = 20
const ROUTES = 2_000
const WAITING = 10_000
/**
 * Calls that wait come and leave at this rate. What comes over the network in one moment is served in one turn, as many small tasks: to
 * measure that would be to measure how fast this process can disturb.
 */
const COMING_PER_SECOND = 2_500
const HELD_MS = 6_000
/** At a time, half of them up and half down. Over loopback all of a body comes in one moment, and so in one turn. */
const BODIES = 4
const MEGABYTE = Buffer.alloc(1_000_000, 'b')
const names = (count: number, name: string): string[] => Array.from({ length: count }, (_, i) => `${name}${i}`)

const configOf = (url: string, dir: string, requests = 1_000_000): object => ({
  store: { dir },
  server: { port: 0, watch: false, maxWaiting: 2 * WAITING, connectionsPerAddress: 20_000 },
  admin: { port: 0 },
  metrics: { maxClients: CLIENTS },
  upstreams: {
    x: {
      url,
      connections: 256,
      accounts: Object.fromEntries(names(ACCOUNTS, 'account').map((name) => [name, { credential: { value: name } }])),
      routes: [
        // One call fills the limit of those that are to wait.
        { path: '/fill', class: 'held', cost: WAITING },
        { path: '/wait', class: 'held' },
        ...names(ROUTES, '/r').map((path) => ({ path: `${path}/{id}`, class: 'read' })),
      ],
      limits: {
        read: [{ requests, window: '60s' }],
        held: [{ requests: WAITING, window: `${HELD_MS}ms`, cost: 'route' }],
      },
      queue: { maxWait: '1h', maxWaiting: 2 * WAITING },
    },
  },
  clients: Object.fromEntries(names(CLIENTS, 'client').map((name) => [name, { keys: [hashKey(`key-${name}`)] }])),
})

/**
 * Disturbs a gateway while calls go on, in one way after the other and then in all of them at once, and prints the longest turn of its
 * event loop meanwhile, and what that was busy with.
 */
export async function measureMixedLoad(canPin: boolean): Promise<void> {
  const folder = temporaryFolder('mixed-load')
  const upstream = createServer((incoming, response) => {
    incoming.resume().on('end', () => response.end(incoming.url === '/big' ? MEGABYTE : '{}'))
  }).listen(0, '127.0.0.1')
  await once(upstream, 'listening')
  const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`
  const env = { LONGEST_TURNS: folder.path, LONGEST_TURNS_CAUSES: 'yes' }
  const gateway = await startProgram(configOf(url, folder.path), folder.path, { before: ['longest-turn.ts'], env })
  if (canPin) spawnSync('taskset', ['-a', '-p', '-c', '0', String(gateway.pid)])
  const agent = new Agent({ connections: 16 })
  const disturber = new Disturber(gateway, (requests) => configOf(url, folder.path, requests), agent)
  try {
    await disturber.everyoneCallsEverywhere()
    await disturber.scrape()
    const ways: Record<string, () => Promise<void>> = {
      'calls alone': () => pause(EACH_MS),
      [`a scrape of ${disturber.series} series`]: () => disturber.repeat(() => disturber.scrape()),
      [`a reload with ${ROUTES} routes`]: () => disturber.repeat(() => disturber.reload()),
      'a reload that is rejected': () => disturber.repeat(() => disturber.rejectedReload()),
      '1 MB bodies': () => disturber.repeat(() => disturber.bodies()),
      'stories looked up': () => disturber.repeat(() => disturber.stories()),
      'quota, queue, usage and page': () => disturber.repeat(() => disturber.views()),
      [`${WAITING} come to wait and are released at once`]: () => disturber.waitAndRelease(),
      [`${WAITING} come to wait and leave within seconds`]: () => disturber.waitAndLeave(),
    }
    const all = Object.values(ways)
    ways['all of it at once'] = async () => {
      const [waitAndLeave, ...others] = all.toReversed()
      await Promise.all(others.map((disturb) => disturb()))
      await waitAndLeave!()
    }
    // Code that runs for the first time is compiled.
    disturber.isShort = true
    for (const disturb of all.slice(1, -2)) await disturb()
    disturber.isShort = false
    for (const [name, disturb] of Object.entries(ways)) {
      await longestTurn(gateway, folder.path)
      await disturber.whileCallsGoOn(disturb)
      const { ms, cause } = await longestTurn(gateway, folder.path)
      bar(`longest turn of the event loop: ${name}`, ms, { atMost: MOST_MS }, 'ms')
      console.log(`        busy with ${cause}`)
    }
  } finally {
    await gateway.stop()
    await agent.destroy()
    upstream.closeAllConnections()
    upstream.close()
    folder.remove()
  }
}

async function longestTurn({ pid }: Started, folder: string): Promise<{ ms: number; cause: string }> {
  const file = join(folder, String(pid))
  writeFileSync(file, '')
  process.kill(pid, 'SIGUSR2')
  for (let text = ''; ; text = readFileSync(file, 'utf8')) {
    if (text === '') await pause(100)
    else return { ms: (JSON.parse(text) as number[])[0] ?? 0, cause: readFileSync(`${file}.cause`, 'utf8') }
  }
}

class Disturber {
  series = 0
  /** Each disturbance comes once only. */
  isShort = false
  readonly #gateway: Started
  readonly #config: (requests: number) => object
  readonly #agent: Agent
  #reloads = 0
  #reloaded: Promise<unknown> = Promise.resolve()

  constructor(gateway: Started, config: (requests: number) => object, agent: Agent) {
    this.#gateway = gateway
    this.#config = config
    this.#agent = agent
  }

  async repeat(disturb: () => Promise<void>): Promise<void> {
    const until = performance.now() + EACH_MS
    do await disturb()
    while (!this.isShort && performance.now() < until)
  }

  async whileCallsGoOn(disturb: () => Promise<void>): Promise<void> {
    let isOver = false
    const calling = (async () => {
      while (!isOver) {
        const options = { connections: 64, perSecond: CALLS_PER_SECOND, durationMs: 1_000 }
        const { failures } = await openLoad(this.#gateway.port, KINDS, options)
        if (failures > 0) throw new Error(`${failures} calls failed`)
      }
    })()
    try {
      await disturb()
    } finally {
      isOver = true
      await calling
    }
  }

  async everyoneCallsEverywhere(): Promise<void> {
    const options = { connections: 32, perSecond: 1_000, durationMs: CLIENTS * ACCOUNTS }
    await openLoad(this.#gateway.port, KINDS, options)
  }

  async scrape(): Promise<void> {
    const text = await this.#ask('GET', '/metrics')
    this.series = text.split('\n').filter((line) => line !== '' && !line.startsWith('#')).length
  }

  async reload(): Promise<void> {
    const { data } = JSON.parse(await this.#reloadTo(1_000_000 + ++this.#reloads)) as { data: { result: string } }
    if (data.result !== 'applied') throw new Error(`the reload was ${data.result}`)
  }

  async rejectedReload(): Promise<void> {
    await this.#reloadTo(-1, 422)
  }

  /** One at a time, since all write the same file. */
  #reloadTo(requests: number, status?: number): Promise<string> {
    const reloaded = this.#reloaded.then(() => {
      writeFileSync(this.#gateway.file, stringify(this.#config(requests)))
      return this.#ask('POST', '/v1/reload', status)
    })
    this.#reloaded = reloaded
    return reloaded
  }

  async bodies(): Promise<void> {
    const base = this.#gateway.url
    const headers = { 'x-sluice-key': 'key-client0', 'x-sluice-account': 'account0' }
    await Promise.all(
      Array.from({ length: BODIES }, async (_, i) => {
        const options = i % 2 === 0 ? { method: 'POST' as const, body: MEGABYTE } : { method: 'GET' as const }
        const { body, statusCode } = await request(`${base}/x/big`, { ...options, headers, dispatcher: this.#agent })
        const { byteLength } = await body.arrayBuffer()
        if (statusCode !== 200 || byteLength !== MEGABYTE.length) throw new Error(`a body ended with ${statusCode}`)
      }),
    )
  }

  async stories(): Promise<void> {
    const { data } = JSON.parse(await this.#ask('GET', '/v1/requests?limit=1000')) as {
      data: { correlationId: string }[]
    }
    await this.#ask('GET', `/v1/requests/${data.at(-1)!.correlationId}`)
    await this.#ask('GET', '/v1/requests?limit=1000&search=nowhere')
  }

  async views(): Promise<void> {
    for (const path of ['/v1/quota', '/v1/queue', '/v1/usage?limit=1000', '/v1/clients?limit=1000', '/'])
      await this.#ask('GET', path)
  }

  async waitAndRelease(): Promise<void> {
    const { sockets, answered } = await this.#wait()
    await answered
    await leave(sockets)
  }

  async waitAndLeave(): Promise<void> {
    const { sockets, answered } = await this.#wait()
    answered.catch(() => undefined)
    await leave(sockets)
  }

  /** The limit is used up by one call, and all others wait until that is forgotten. */
  async #wait(): Promise<{ sockets: Socket[]; answered: Promise<unknown> }> {
    const fields = (i: number) => ({ 'X-Sluice-Key': `key-client${i % CLIENTS}`, 'X-Sluice-Account': 'account0' })
    const sockets: Socket[] = []
    const answers: Promise<unknown>[] = []
    for (let i = 0; i <= WAITING; i++) {
      const socket = connect(this.#gateway.port, '127.0.0.1')
      socket.on('error', () => undefined)
      sockets.push(socket)
      socket.write(get(i === 0 ? '/x/fill' : '/x/wait', fields(i)))
      const answer = once(socket, 'data') as Promise<[Buffer]>
      answers.push(
        answer.then(([text]) => {
          if (!text.toString().startsWith('HTTP/1.1 200')) throw new Error(text.toString())
        }),
      )
      if (i === 0) await answers[0]
      if (i % 25 === 0) await pause((25 * 1_000) / COMING_PER_SECOND)
    }
    return { sockets, answered: Promise.all(answers) }
  }

  async #ask(method: 'GET' | 'POST', path: string, status = 200): Promise<string> {
    const { statusCode, body } = await request(`${this.#gateway.adminUrl}${path}`, { method, dispatcher: this.#agent })
    const text = await body.text()
    if (statusCode !== status) throw new Error(`${path} was answered with ${statusCode}: ${text.slice(0, 300)}`)
    return text
  }
}

async function leave(sockets: readonly Socket[]): Promise<void> {
  for (const [i, socket] of sockets.entries()) {
    socket.destroy()
    if (i % 25 === 0) await pause((25 * 1_000) / COMING_PER_SECOND)
  }
}

/** A call of each client with each account, and over many routes. */
const KINDS = Array.from({ length: CLIENTS * ACCOUNTS }, (_, i) =>
  get(`/x/r${i % ROUTES}/42`, {
    'X-Sluice-Key': `key-client${i % CLIENTS}`,
    'X-Sluice-Account': `account${Math.floor(i / CLIENTS)}`,
  }),
)
