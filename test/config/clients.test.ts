import { describe, expect, it } from 'vitest'
import { checkClients } from '../../src/config/client-problems.ts'
import { checkConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/config/problem.ts'
import { warningsOf } from '../../src/config/warnings.ts'
import { configuredClients } from '../../src/server/admin/client-view.ts'
import { harnessConfig } from '../support/gateway.ts'
import { growsLinearly } from '../support/growth.ts'

const KEY = `sha256:${'1'.repeat(64)}`
const OTHER = `sha256:${'2'.repeat(64)}`

function load(clients: object) {
  return checkConfig(harnessConfig('https://app.harness.io', {}, { clients }), 'test')
}

function problemsOf(clients: object): string {
  try {
    load(clients)
    return ''
  } catch (error) {
    if (error instanceof ConfigError) return error.message
    throw error
  }
}

describe('clients in a configuration', () => {
  it('have keys as hashes alone, or with a label and an end', () => {
    const keys = [KEY, { hash: OTHER, label: 'CI', expires: '2027-01-31' }]
    expect(load({ bot: { keys } }).clients!['bot']!.keys).toEqual([
      KEY,
      { hash: OTHER, label: 'CI', expires: Date.parse('2027-02-01T00:00Z') },
    ])
  })

  it.each(['0%', '7%', '12.3%', '57%', '33.3333%', '0.0000001%', '99.9%', '100%'])(
    'are shown with the share %s as it was written',
    (share) => {
      expect([...configuredClients(load({ bot: { keys: [KEY], share } }))]).toEqual([
        expect.objectContaining({ share }),
      ])
    },
  )

  it.each([
    ['2027-01-31T18:00Z', '2027-01-31T18:00Z'],
    ['2027-01-31T18:00:30+02:00', '2027-01-31T16:00:30Z'],
    ['2027-01-31T18:00:30.123456+0200', '2027-01-31T16:00:30.123Z'],
  ])('have keys that expire at a moment: %s', (expires, moment) => {
    const { keys } = load({ bot: { keys: [{ hash: KEY, expires }] } }).clients!['bot']!
    expect(keys).toEqual([{ hash: KEY, expires: Date.parse(moment) }])
  })

  it.each<[string, object, string]>([
    ['a day that does not exist', { keys: [{ hash: KEY, expires: '2027-02-30' }] }, 'keys[0]'],
    ['a time without a zone', { keys: [{ hash: KEY, expires: '2027-01-31T18:00' }] }, 'keys[0]'],
    ['a key in the clear', { keys: ['slk_abc'] }, 'or { hash, label, expires }'],
    [
      'a misspelt field of a key',
      { keys: [{ hash: KEY, expire: '2027-01-31' }] },
      'keys[0].expire: unknown key "expire"; did you mean "expires"?',
    ],
    ['one key twice', { keys: [KEY, { hash: KEY }] }, 'client "bot" has the same key'],
    ['an unknown upstream', { keys: [KEY], upstreams: ['harnes'] }, 'did you mean "harness"?'],
    ['an unknown method', { keys: [KEY], methods: ['get'] }, 'an HTTP method'],
    [
      'neither keys nor tokens',
      {},
      'it needs keys (npx sluice keys create), tokens or certificates to prove who it is',
    ],
    [
      'an unknown issuer of tokens',
      { tokens: [{ issuer: 'corp', claims: { sub: 'x' } }] },
      'no such entry in tokenIssuers',
    ],
    ['a token whose claims do not matter', { tokens: [{ issuer: 'corp', claims: {} }] }, 'claims'],
    ['a path that is none', { keys: [KEY], paths: ['ng/api'] }, 'begins with "/"'],
  ])('are refused with %s', (_, client, message) => {
    expect(problemsOf({ bot: client })).toContain(message)
  })

  it('are refused an account of an upstream that they may not use', () => {
    const { upstreams } = harnessConfig('https://app.harness.io') as { upstreams: Record<string, object> }
    const config = {
      upstreams: { ...upstreams, second: { ...upstreams['harness'], url: 'https://second.example' } },
      clients: { bot: { keys: [KEY], upstreams: ['second'], accounts: ['harness/prod'] } },
    }
    expect(() => checkConfig(config, 'test')).toThrow('an upstream that this client may not use')
  })

  it('are warned about keys that have expired, or will within a week', () => {
    const expiries = ['2027-01-01', '2027-01-07', '2027-02-07']
    const keys = expiries.map((expires, i) => ({ hash: `sha256:${String(i).repeat(64)}`, expires }))
    expect(warningsOf(load({ bot: { keys } }), Date.parse('2027-01-03'))).toEqual([
      'clients.bot.keys[0] has expired',
      'clients.bot.keys[1] expires 2027-01-08T00:00:00.000Z',
    ])
  })
})

describe('issuers of tokens', () => {
  const corp = { issuer: 'https://login.example', audience: 'sluice', jwks: 'https://login.example/keys' }

  it.each<[string, object, string]>([
    [
      'an algorithm that needs a shared secret',
      { corp: { ...corp, algorithms: ['HS256'] } },
      'tokenIssuers.corp.algorithms',
    ],
    ['none at all', { corp: { ...corp, algorithms: ['none'] } }, 'tokenIssuers.corp.algorithms'],
    ['no audience', { corp: { issuer: corp.issuer, jwks: corp.jwks } }, 'the key "audience" is missing'],
    [
      'an issuer twice',
      { corp, other: corp },
      'other.issuer: tokenIssuers.corp has the same issuer; each may occur once',
    ],
  ])('are refused with %s', (_, tokenIssuers, message) => {
    expect(() => checkConfig(harnessConfig('https://app.harness.io', {}, { tokenIssuers }), 'test')).toThrow(message)
  })
})

it('clients are checked in time that grows with them and the accounts, and not with their product', () => {
  const checking = (size: number) => {
    const names = Array.from({ length: size }, (_, i) => `n${i}`)
    const accounts = Object.fromEntries(names.map((name) => [name, { id: name, credential: { value: name } }]))
    const clients = Object.fromEntries(
      names.map((name, i) => [
        name,
        { keys: [KEY.replace('1111', `${1_000 + i}`)], accounts: [`harness/${name}`], share: '1%' },
      ]),
    )
    const config = checkConfig(harnessConfig('https://app.harness.io', { accounts }, { clients }), 'test')
    return () => checkClients(config, (_, message) => expect.fail(message))
  }
  expect(growsLinearly(checking, 200)).toBe(true)
})

it('the last client with a share of an account is told of shares that are too much together', () => {
  const all = { keys: [KEY], share: '60%' }
  const some = { keys: [OTHER], accounts: ['harness/prod'], share: '50%' }
  const told = 'with this one, the shares of harness/prod add up to more than 100%'
  expect(problemsOf({ all, some })).toBe(`test: clients.some.share: ${told}`)
  expect(problemsOf({ some, all })).toBe(`test: clients.all.share: ${told}`)
  expect(problemsOf({ some, all: { ...all, upstreams: ['other'] } })).not.toContain('add up')
  expect(problemsOf({ some, all: { ...all, share: '50%' } })).toBe('')
})
