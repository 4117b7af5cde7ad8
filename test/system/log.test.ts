import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { harnessConfig, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'

const WEBHOOK = 'pipeline/api/webhook/custom'

describe('the path on a log line', () => {
  it.each([
    `/harness/${WEBHOOK}/tok3n/v3`,
    `/harness/gateway/${WEBHOOK}/tok3n/v3`,
    `/harness//gateway/${WEBHOOK}/tok3n/v3`,
    `/harness/./gateway//${WEBHOOK}/tok3n/v3`,
    `/harness/%67ateway/pipeline/api/web%68ook/custom/tok3n/v3`,
    `/harness/pipeline/api/webhook;a=b/custom;c/tok3n;d/v3`,
    `http://gateway.internal/harness/${WEBHOOK}/tok3n/v3`,
    `/${WEBHOOK}/tok3n/v3`,
    `//gateway/${WEBHOOK}/tok3n/v3`,
    `/harness/${WEBHOOK}/tok3n/v3?secret=tok3n`,
  ])('has no webhook token in it, however it was sent: %s', async (path) => {
    const upstream = await startUpstream()
    const server = { port: 0, hosts: ['gateway.internal'] }
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { server, defaultUpstream: 'harness' }))
    expect((await call(gateway.url, path, { method: 'POST' })).status).toBe(200)
    expect(gateway.lines).toMatchObject([{ class: 'webhook', upstream: 'harness' }])
    expect(gateway.lines[0]!.path.replace(/^\/harness/, '')).toBe(`/${WEBHOOK}/[redacted]/v3`)
    expect(upstream.seen[0]!.url).toMatch(/\/tok3n(;d)?\/v3/)
  })

  it.each(['GET', 'HEAD', 'PUT'])(
    'has no webhook token in it, although %s is the wrong method for it',
    async (method) => {
      const upstream = await startUpstream()
      const gateway = await startGateway(harnessConfig(upstream.url))
      await call(gateway.url, `/harness/${WEBHOOK}/tok3n/v3`, { method })
      expect(gateway.lines).toMatchObject([{ path: `/harness/${WEBHOOK}/[redacted]/v3` }])
    },
  )

  it('has nothing in it of a target that is refused for its host', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:9', {}, { defaultUpstream: 'harness' }))
    for (const authority of ['user:tok3n@gateway.internal', 'tok3n.example']) {
      const path = `http://${authority}/${WEBHOOK}/tok3n/v3?secret=tok3n`
      expect((await call(gateway.url, path, { method: 'POST' })).headers['x-sluice-error']).toBeTypeOf('string')
    }
    expect(gateway.lines.map(({ path }) => path)).toEqual(['/', '/'])
  })

  it('is as it was sent, up to the query, where it holds no secret', async () => {
    const upstream = await startUpstream()
    const server = { port: 0, hosts: ['gateway.internal'] }
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { server }))
    for (const path of ['/harness//ng/./api/x%20y?a=1', '/harness', 'http://gateway.internal/harness/ng/api/x?a=1']) {
      await call(gateway.url, path)
    }
    expect(gateway.lines.map(({ path }) => path)).toEqual([
      '/harness//ng/./api/x%20y',
      '/harness/',
      '/harness/ng/api/x',
    ])
  })

  it('says no more than how it begins while nobody knows what is in it', async () => {
    const clients = { bot: { keys: [hashKey('slk_x')] } }
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { clients }))
    await call(gateway.url, '/nowhere/tok3n?tok3n')
    await call(gateway.url, '/harness/%zz/tok3n')
    expect(gateway.lines.map(({ path }) => path)).toEqual(['/nowhere', '/harness'])
  })
})
