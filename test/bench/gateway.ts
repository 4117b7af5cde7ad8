import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { runGateway } from '../../src/process/run.ts'

/** The gateway with everything on: a client with a key, quotas, breaker, metrics, access log (to /dev/null). */
const redisUrl = process.env['GATEWAY_REDIS_URL']
const endpoint = process.env['GATEWAY_TRACES']
const limit = [{ requests: 4_000_000_000, window: '60s' }]
const config = checkConfig(
  {
    server: { port: 0 },
    admin: { port: 0 },
    store:
      redisUrl === undefined
        ? { kind: 'memory', dir: process.env['GATEWAY_STORE'] }
        : { kind: 'redis', url: redisUrl, prefix: `bench-${process.pid}` },
    upstreams: {
      harness: {
        preset: 'harness',
        url: process.env['UPSTREAM'],
        accounts: { prod: { id: 'acct1234', credential: { value: 'pat.acct1234.token.secret' } } },
        limits: { read: limit, write: limit, template: limit },
      },
    },
    telemetry: endpoint === undefined ? {} : { traces: { endpoint, sample: process.env['GATEWAY_SAMPLE'] } },
    clients: { bench: { keys: [hashKey('slk_bench')], accounts: ['harness/prod'] } },
  },
  'bench',
)
const gateway = await runGateway(config, { log: createLog(config.log) })
process.send?.({ url: gateway.url })
