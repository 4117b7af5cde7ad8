import { expect, it } from 'vitest'
import { startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'

it('a credential that an upstream answers with 401 is counted, from zero on, and a 403 or a call without one is not', async () => {
  const upstream = await startUpstream(({ url }, response) => {
    response.writeHead(Number(/status=(\d+)/.exec(url)?.[1])).end('{}')
  })
  const limits = { read: [], write: [] }
  const credential = { header: 'x-api-key', value: 'revoked' }
  const gateway = await startGateway({
    server: { port: 0 },
    admin: { port: 0 },
    upstreams: {
      keyed: { url: upstream.url, accounts: { a: { credential } }, limits },
      open: { url: upstream.url, accounts: { a: {} }, limits },
    },
  })
  const refused = async () =>
    valuesOf(parseMetrics(await gateway.metrics()), 'sluice_credential_refused_total', 'upstream')
  for (const path of ['/keyed/x?status=200', '/keyed/x?status=403', '/open/x?status=401']) await call(gateway.url, path)
  expect(await refused()).toEqual({ keyed: 0, open: 0 })
  expect((await call(gateway.url, '/keyed/x?status=401')).status).toBe(401)
  expect((await call(gateway.url, '/keyed/x?status=401', { method: 'POST' })).status).toBe(401)
  expect(await refused()).toEqual({ keyed: 2, open: 0 })
})
