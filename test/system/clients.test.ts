import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { harnessConfig, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'

async function gatewayWith(clients: object) {
  const upstream = await startUpstream()
  const gateway = await startGateway(harnessConfig(upstream.url, {}, { clients }))
  const ask = async (key: string, path: string, method = 'GET') => {
    const answer = await call(gateway.url, `/harness${path}`, { method, headers: { 'x-sluice-key': key } })
    return answer.status === 200
      ? 'ok'
      : `${answer.status} ${String(answer.headers['x-sluice-error'])}: ${answer.json().message}`
  }
  return { upstream, gateway, ask }
}

describe('the keys of a client', () => {
  it('are refused once they have expired, and the others go on', async () => {
    const keys = [{ hash: hashKey('old'), label: 'laptop', expires: '2020-01-31' }, hashKey('new')]
    const { upstream, ask } = await gatewayWith({ bot: { keys } })
    expect(await ask('old', '/ng/api/projects')).toBe('401 unauthenticated: the client key in x-sluice-key has expired')
    expect(await ask('new', '/ng/api/projects')).toBe('ok')
    expect(upstream.seen).toHaveLength(1)
  })
})

describe('the scope of a client', () => {
  it('keeps it to its upstreams, methods and paths', async () => {
    const { upstream, ask } = await gatewayWith({
      elsewhere: { keys: [hashKey('one')], upstreams: ['harness'], methods: ['GET'], paths: ['/ng/api/*'] },
    })
    expect(await ask('one', '/ng/api/projects')).toBe('ok')
    expect(await ask('one', '/gateway/ng/api/projects', 'HEAD')).toBe('ok')
    expect(await ask('one', '/ng/api/projects', 'POST')).toMatch(/^403 forbidden: .*elsewhere may not make POST calls$/)
    expect(await ask('one', '/pipeline/api/x')).toMatch(/^403 forbidden: .*may not call this path$/)
    expect(upstream.seen).toHaveLength(2)
  })
})
