import { generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeJwt } from 'jose'
import { describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { createKey } from '../../src/clients/keys.ts'
import { type EpochMs, systemClock } from '../../src/time/clock.ts'
import { newFolder, startGateway, startUpstream, stores } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { Program } from '../support/process.ts'
import { bearerOf } from '../support/token-server.ts'

const MINUTE = 60_000
const NOW = { headers: { 'x-sluice-max-wait': '0' } }
const SET_CLOCK = new URL('../support/set-clock.ts', import.meta.url).pathname
const MAIN = new URL('../../src/main.ts', import.meta.url).pathname

/** The clock of this machine, were its wall clock wrong. */
function wrongClock(byMs: number) {
  let wrongMs = byMs
  const wall = (): EpochMs => (Date.now() + wrongMs) as EpochMs
  return { clock: { ...systemClock, wall }, correct: () => void (wrongMs = 0) }
}

/** Milliseconds since 1970 of `20261121T120000Z`. */
function momentOf(amzDate: string | string[] | undefined): number {
  return Date.parse(String(amzDate).replace(/^(\d{4})(\d\d)(\d\dT\d\d)(\d\d)(\d\dZ)$/, '$1-$2-$3:$4:$5'))
}

describe.each(Object.entries(stores))('with %s, a gateway that started with a clock that was', (_, store) => {
  describe.each([
    ['ten minutes behind', -10 * MINUTE],
    ['ten minutes ahead', 10 * MINUTE],
  ])('%s, once that is set right,', (__, wrongMs) => {
    it('dates what it signs by the right time', async () => {
      const upstream = await startUpstream()
      const { clock, correct } = wrongClock(wrongMs)
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const key = privateKey.export({ type: 'pkcs8', format: 'pem' })
      const aws = {
        type: 'sigv4',
        accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
        secretAccessKey: 'secret-of-aws',
        region: 'eu-1',
        service: 's3',
      }
      const upstreams = {
        aws: { url: upstream.url, accounts: { main: { credential: aws } } },
        jwt: { url: upstream.url, accounts: { main: { credential: { type: 'jwt', key, issuer: 'me' } } } },
      }
      const config = { server: { port: 0 }, admin: { port: 0 }, store: store(), upstreams }
      const gateway = await startGateway(config, { clock })
      await call(gateway.url, '/aws/x')
      await call(gateway.url, '/jwt/x')
      correct()
      await call(gateway.url, '/aws/x')
      await call(gateway.url, '/jwt/x')
      const now = Date.now()
      const [wrongAws, wrongJwt, rightAws, rightJwt] = upstream.seen.map(({ headers }) => headers)
      const issuedAt = (headers: typeof wrongJwt): number => decodeJwt(bearerOf(headers!)!).iat! * 1_000
      expect(Math.abs(momentOf(wrongAws!['x-amz-date']) - now - wrongMs)).toBeLessThan(2 * MINUTE)
      expect(Math.abs(momentOf(rightAws!['x-amz-date']) - now)).toBeLessThan(2 * MINUTE)
      expect(Math.abs(issuedAt(wrongJwt) - now - wrongMs)).toBeLessThan(2 * MINUTE)
      expect(Math.abs(issuedAt(rightJwt) - now)).toBeLessThan(2 * MINUTE)
    })

    it('refuses keys that have expired, and no others', async () => {
      const upstream = await startUpstream()
      const { clock, correct } = wrongClock(wrongMs)
      const keyThat = (inMs: number) => {
        const { key, keyHash } = createKey()
        return { key, config: { hash: keyHash, expires: new Date(Date.now() + inMs).toISOString() } }
      }
      const [old, good] = [keyThat(-5 * MINUTE), keyThat(5 * MINUTE)]
      const config = {
        server: { port: 0 },
        admin: { port: 0 },
        store: store(),
        clients: { one: { keys: [old.config, good.config] } },
        upstreams: { api: { url: upstream.url, accounts: { main: {} } } },
      }
      const gateway = await startGateway(config, { clock })
      correct()
      const statusWith = async (key: string) =>
        (await call(gateway.url, '/api/x', { headers: { 'x-sluice-key': key, authorization: `Bearer ${key}` } })).status
      expect([await statusWith(old.key), await statusWith(good.key)]).toEqual([401, 200])
    })

    it('tells the reset of a limit, and reads the date of a Retry-After, by the right time', async () => {
      let isRefusing = false
      const upstream = await startUpstream((___, response) => {
        // Without a Date, by which the gateway could tell that its clock is wrong.
        response.sendDate = false
        if (isRefusing) response.writeHead(429, { 'retry-after': new Date(Date.now() + 60_000).toUTCString() }).end()
        else response.end()
      })
      const { clock, correct } = wrongClock(wrongMs)
      const limits = { read: [{ requests: 10, window: '60s' }], write: [{ requests: 10, window: '60s' }] }
      const config = {
        server: { port: 0 },
        admin: { port: 0 },
        store: store(),
        upstreams: { api: { url: upstream.url, accounts: { main: {} }, limits, retry: { retries: 0 } } },
      }
      const gateway = await startGateway(config, { clock })
      await call(gateway.url, '/api/x', NOW)
      correct()
      const { headers } = await call(gateway.url, '/api/x', NOW)
      expect(Math.abs(Number(headers['x-ratelimit-reset']) - Date.now() / 1_000 - 60)).toBeLessThan(30)
      isRefusing = true
      await call(gateway.url, '/api/x', NOW)
      isRefusing = false
      // By the wrong time it would be ten minutes more, or none.
      const { status, headers: refused } = await call(gateway.url, '/api/x', NOW)
      expect(status).toBe(429)
      expect(Number(refused['retry-after'])).toBeGreaterThan(20)
      expect(Number(refused['retry-after'])).toBeLessThan(120)
    })
  })
})

describe('a gateway process that is killed and starts again with another time of day', () => {
  it.each([11 * MINUTE, -11 * MINUTE])(
    'does not send more than the limit: %i ms later by the wall clock',
    async (setMs) => {
      const upstream = await startUpstream()
      const cwd = newFolder()
      const limits = { read: [{ requests: 200, window: '10m' }] }
      const upstreams = { api: { url: upstream.url, accounts: { main: {} }, limits } }
      writeFileSync(join(cwd, 'sluice.yaml'), stringify({ server: { port: 0 }, admin: { port: 0 }, upstreams }))
      const start = async (clockMs: number): Promise<Program & { url: string }> => {
        const command = [process.execPath, '--import', SET_CLOCK, MAIN]
        const program = new Program(['start'], { cwd, command, env: { CLOCK_SET: String(clockMs) } })
        const { url } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string }
        return Object.assign(program, { url })
      }
      const first = await start(0)
      await Promise.all(Array.from({ length: 200 }, () => call(first.url, '/api/x', NOW)))
      expect(upstream.seen).toHaveLength(200)
      first.kill('SIGKILL')
      await first.ended
      const second = await start(setMs)
      const statuses = await Promise.all(
        Array.from({ length: 60 }, async () => (await call(second.url, '/api/x', NOW)).status),
      )
      expect(new Set(statuses)).toEqual(new Set([429]))
      expect(upstream.seen).toHaveLength(200)
    },
    180_000,
  )
})
