import { describe, expect, it } from 'vitest'
import { isAddressAllowed } from '../../src/clients/network-access.ts'
import { hostToReach, isPublicAddress } from '../../src/net/address.ts'

const PUBLIC = [
  '1.1.1.1',
  '100.63.255.255',
  '100.128.0.0',
  '172.15.0.1',
  '172.32.0.1',
  '169.253.0.1',
  '223.255.255.255',
]
const PUBLIC_V6 = ['2606:4700::1111', '2a00:1450:4001::1', '::ffff:1.1.1.1', '::ffff:101:101', '64:ff9b::101:101']
const OTHERS: Record<string, string[]> = {
  'this machine': ['127.0.0.1', '127.255.255.254', '0.0.0.0', '0.1.2.3', '::1', '::'],
  'a private network': [
    '10.0.0.1',
    '10.255.255.255',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.0.1',
    'fc00::1',
    'fdff::1',
  ],
  'the link': ['169.254.0.1', 'fe80::1', 'fe80::1%eth0', 'febf::1'],
  'cloud metadata': ['169.254.169.254', '169.254.170.2', '100.100.100.200', 'fd00:ec2::254', '192.0.0.192'],
  'a carrier’s network': ['100.64.0.1', '100.127.255.255'],
  'an IPv4 address in another form': [
    '::ffff:10.0.0.1',
    '::ffff:a00:1',
    '::ffff:7f00:1',
    '::10.0.0.1',
    '::ffff:0:10.0.0.1',
  ],
  'a translation or tunnel to one': ['64:ff9b::a00:1', '64:ff9b:1::1', '2002:a00:1::1', '2001:0:a00:1::1'],
  'documentation or tests': [
    '192.0.2.1',
    '198.51.100.1',
    '203.0.113.1',
    '198.18.0.1',
    '2001:db8::1',
    '3fff::1',
    '100::1',
  ],
  'multicast or nobody': ['224.0.0.1', '255.255.255.255', '240.0.0.1', 'ff02::1', 'fec0::1', '4000::1'],
  'no address at all': ['', 'localhost', '10.0.0', '1.1.1.1.1'],
}

describe('an address', () => {
  it.each([...PUBLIC, ...PUBLIC_V6])('of the public Internet: %s', (address) => {
    expect(isPublicAddress(address)).toBe(true)
  })

  it.each(Object.entries(OTHERS).flatMap(([what, addresses]) => addresses.map((address) => [what, address])))(
    'of %s is none of it: %s',
    (_, address) => {
      expect(isPublicAddress(address)).toBe(false)
    },
  )
})

describe('an address that a name stands for', () => {
  const METADATA = '169.254.169.254'
  it.each<[string, string, { allowed?: string[]; blocked?: string[] }, boolean, boolean]>([
    ['public', '1.1.1.1', {}, false, true],
    ['private', '10.0.0.1', {}, false, false],
    ['private, and all such are allowed', '10.0.0.1', {}, true, true],
    ['private, and this one is allowed', '10.0.0.1', { allowed: ['api.example', '10.0.0.1'] }, false, true],
    ['private, and another one is allowed', '10.0.0.2', { allowed: ['api.example', '10.0.0.1'] }, false, false],
    ['private in another form, and allowed', '::ffff:10.0.0.1', { allowed: ['10.0.0.1'] }, false, true],
    ['an IPv6 one that is allowed', 'fd00::1', { allowed: ['[FD00:0::1]'] }, false, true],
    ['blocked', '1.1.1.1', { blocked: ['1.1.1.1'] }, false, false],
    ['blocked, though all private ones are allowed', METADATA, { blocked: [METADATA] }, true, false],
    ['blocked in another form', `::ffff:${METADATA}`, { blocked: [METADATA] }, true, false],
    ['blocked and allowed', '10.0.0.1', { allowed: ['10.0.0.1'], blocked: ['10.0.0.1'] }, true, false],
    ['public, with a list of names', '1.1.1.1', { allowed: ['api.example'] }, false, true],
  ])('%s: %s', (_, address, { allowed = [], blocked = [] }, arePrivateAllowed, expected) => {
    expect(isAddressAllowed(address, [{ allowed, blocked }], arePrivateAllowed)).toBe(expected)
  })

  it('must not be blocked in any layer', () => {
    const layers = [
      { allowed: [], blocked: [] },
      { allowed: [], blocked: ['1.1.1.1'] },
    ]
    expect(isAddressAllowed('1.1.1.1', layers, true)).toBe(false)
  })
})

it.each([
  ['0.0.0.0', '127.0.0.1'],
  ['::', '[::1]'],
  ['::1', '[::1]'],
  ['[2001:db8::1]', '[2001:db8::1]'],
  ['10.0.0.5', '10.0.0.5'],
  ['localhost', 'localhost'],
])('what listens on %s is reached at %s', (host, expected) => {
  expect(hostToReach(host)).toBe(expected)
})
