import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { harnessConfig, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'

const READ = '/harness/ng/api/projects'
const CLIENTS = { bot: { keys: [hashKey('slk_right')] } }

/** Calls come from 127.0.0.1, as if from a load balancer on this machine. */
async function startBehind(trustedProxies: readonly string[], rest: object = {}) {
  const upstream = await startUpstream()
  const server = { port: 0, trustedProxies, wrongKeys: { perAddress: 2 }, connectionsPerAddress: 1 }
  const gateway = await startGateway(harnessConfig(upstream.url, {}, { server, clients: CLIENTS, ...rest }))
  const send = (key: string, forwarded?: string | Record<string, string | string[]>) => {
    const told = typeof forwarded === 'string' ? { 'x-forwarded-for': forwarded } : forwarded
    const headers = { 'x-sluice-key': key, ...told }
    return call(gateway.url, READ, { headers })
  }
  return { gateway, send }
}

describe('the address of a client behind a load balancer that is trusted', () => {
  it.each([
    ['the one that the balancer names', '203.0.113.7', '203.0.113.7'],
    [
      'the last one that is no balancer, whatever the client itself said before',
      '1.1.1.1, 203.0.113.7, 10.0.0.9',
      '203.0.113.7',
    ],
    ['an IPv6 address', '2001:db8::7', '2001:db8::7'],
    ['an address with a port', '203.0.113.7:4711', '203.0.113.7'],
    ['an IPv6 address with a port', '[2001:db8::7]:4711', '2001:db8::7'],
    ['that of the first balancer, where nobody else is named', '10.0.0.8, 10.0.0.9', '10.0.0.8'],
    ['that of the balancer, where what it names is no address', 'unknown', '127.0.0.1'],
    ['that of the balancer, where it names none', undefined, '127.0.0.1'],
  ])('is %s', async (_, forwarded, address) => {
    const { gateway, send } = await startBehind(['127.0.0.0/8', '10.0.0.0/8'])
    expect((await send('slk_right', forwarded)).status).toBe(200)
    expect(gateway.lines).toMatchObject([{ address }])
  })

  it.each([
    ['the one that Forwarded names', 'for=203.0.113.7', '203.0.113.7'],
    [
      'the last one of several that is no balancer',
      'for=1.1.1.1, For=203.0.113.7;proto=https, for=10.0.0.9',
      '203.0.113.7',
    ],
    ['an IPv6 address in quotes, with a port', 'proto=https;for="[2001:db8:cafe::17]:4711";by=_x', '2001:db8:cafe::17'],
    ['one with a port that is hidden', 'for="203.0.113.7:_port"', '203.0.113.7'],
    ['one without the quotes that it should have', 'for=203.0.113.7:4711', '203.0.113.7'],
    ['one behind a quoted comma', 'for=1.1.1.1;host="a, for=2.2.2.2\\"",for=203.0.113.7', '203.0.113.7'],
    ['that of the balancer, where the client is unknown', 'for=1.1.1.1, for=unknown', '127.0.0.1'],
    ['that of the balancer, where the client is hidden', 'for=1.1.1.1, for=_SEVKISEK', '127.0.0.1'],
    ['that of the balancer, where an element names nobody', 'for=1.1.1.1, proto=https', '127.0.0.1'],
    ['that of the balancer, where it is malformed', 'for=203.0.113.7, for="10.0.0.9', '127.0.0.1'],
    ['that of the balancer, where brackets hold no IPv6', 'for="[203.0.113.7]"', '127.0.0.1'],
  ])('is %s', async (_, forwarded, address) => {
    const { gateway, send } = await startBehind(['127.0.0.0/8', '10.0.0.0/8'])
    await send('slk_right', { forwarded })
    // The same in lines of their own, as each balancer may add one.
    await send('slk_right', { forwarded: forwarded.split(', ') })
    expect(gateway.lines).toMatchObject([{ address }, { address }])
  })

  it('is not that in Forwarded where there is X-Forwarded-For, which a balancer wrote', async () => {
    const { gateway, send } = await startBehind(['127.0.0.1'])
    await send('slk_right', { forwarded: 'for=1.1.1.1', 'x-forwarded-for': '203.0.113.7' })
    expect(gateway.lines).toMatchObject([{ address: '203.0.113.7' }])
  })

  it('is what counts for wrong keys: others behind the same balancer go on', async () => {
    const { send } = await startBehind(['127.0.0.1'])
    for (const key of ['slk_1', 'slk_2', 'slk_3']) await send(key, '203.0.113.7')
    expect((await send('slk_right', '203.0.113.7')).status).toBe(429)
    expect((await send('slk_right', '203.0.113.8')).status).toBe(200)
  })

  it('is what counts for wrong admin tokens', async () => {
    const { gateway } = await startBehind(['127.0.0.1'], { admin: { port: 0, token: 'right' } })
    const ask = (token: string, from: string) => {
      const headers = { authorization: `Bearer ${token}`, 'x-forwarded-for': from }
      return call(gateway.adminUrl, '/v1/quota', { headers })
    }
    for (let i = 0; i < 11; i++) await ask(`wrong-${i}`, '203.0.113.7')
    expect((await ask('right', '203.0.113.7')).status).toBe(429)
    expect((await ask('right', '203.0.113.8')).status).toBe(200)
  })

  it('does not count as one with too many connections', async () => {
    const { gateway, send } = await startBehind(['127.0.0.1'])
    const answers = await Promise.all(['1', '2', '3'].map((last) => send('slk_right', `203.0.113.${last}`)))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(gateway.lines).toHaveLength(3)
  })
})

describe('anybody else', () => {
  it('is not believed what it says of its address', async () => {
    const { gateway, send } = await startBehind(['10.0.0.0/8'])
    await send('slk_right', '203.0.113.7')
    expect(gateway.lines).toMatchObject([{ address: '127.0.0.1' }])
    for (const [i, key] of ['slk_1', 'slk_2', 'slk_3'].entries()) await send(key, `203.0.113.${i}`)
    expect((await send('slk_right', '203.0.113.9')).status).toBe(429)
  })
})

describe('server.trustedProxies', () => {
  it.each(['nonsense', '10.0.0.0/33', '10.0.0.0/0', '10.0.0/8', '::1/129', '10.0.0.1/8/8', 'loopback'])(
    'refuses %s',
    (range) => {
      const config = harnessConfig('http://127.0.0.1:1', {}, { server: { trustedProxies: [range] } })
      expect(() => checkConfig(config, 'test')).toThrow('an IP address or a network such as 10.0.0.0/8')
    },
  )
})
