import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { runGateway } from '../../src/process/run.ts'

/** A gateway with so many accounts, clients and routes; see growth.ts. */
interface Size {
  readonly accounts: number
  readonly clients: number
  readonly routes: number
  readonly url: string
  /** Of Redis; with the embedded store a folder instead. */
  readonly redis?: string
  readonly folder: string
}

const { accounts, clients, routes, url, redis, folder } = JSON.parse(process.env['GROWN']!) as Size
const names = (count: number, name: string): string[] => Array.from({ length: count }, (_, i) => `${name}${i}`)
const config = checkConfig(
  {
    server: { port: 0, maxWaiting: 50_000, connectionsPerAddress: 50_000 },
    admin: { port: 0 },
    store: redis === undefined ? { dir: folder } : { kind: 'redis', url: redis, prefix: `growth-${process.pid}` },
    upstreams: {
      x: {
        url,
        accounts: Object.fromEntries(names(accounts, 'account').map((name) => [name, { credential: { value: name } }])),
        // One call fills the limit of those that are to wait.
        routes: [
          { path: '/fill', class: 'held', cost: 50_000 },
          { path: '/wait', class: 'held' },
          ...names(routes, '/r').map((path) => ({ path: `${path}/{id}`, class: 'read' })),
        ],
        limits: {
          read: [{ requests: 4_000_000_000, window: '60s' }],
          held: [{ requests: 50_000, window: '30m', cost: 'route' }],
        },
        queue: { maxWait: '1h', maxWaiting: 50_000 },
      },
    },
    clients: Object.fromEntries(names(clients, 'client').map((name) => [name, { keys: [hashKey(`key-${name}`)] }])),
  },
  'growth',
)
const gateway = await runGateway(config, { log: createLog(config.log) })
// Whoever measures it may fail before ending it.
process.on('disconnect', () => process.exit())
process.send?.({ url: gateway.url })
