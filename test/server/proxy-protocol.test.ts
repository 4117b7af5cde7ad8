import { describe, expect, it } from 'vitest'
import { isProxyHeader, type ProxyHeader, readProxyHeader } from '../../src/server/proxy-protocol.ts'
import { proxyHeaderV2 as v2 } from '../support/proxy-header.ts'

const MOST = 16_384
const read = (bytes: Buffer | string, most = MOST): ProxyHeader =>
  readProxyHeader(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes, most)

const V4 = Buffer.from([203, 0, 113, 7, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb])
const V6 = Buffer.from(`20010db8${'0'.repeat(23)}7${'0'.repeat(31)}1dc0401bb`, 'hex')
const TLVS = Buffer.from([0x02, 0, 3, 0x61, 0x2e, 0x62, 0x20, 0, 0])

const whole: readonly [name: string, header: Buffer, address: string | undefined][] = [
  ['1, TCP4', Buffer.from('PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n'), '203.0.113.7'],
  ['1, TCP6', Buffer.from('PROXY TCP6 2001:DB8:0:0::7 ::1 56324 443\r\n'), '2001:db8::7'],
  ['1, UNKNOWN', Buffer.from('PROXY UNKNOWN\r\n'), undefined],
  ['1, UNKNOWN with whatever', Buffer.from('PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n'), undefined],
  [
    '1, as long as can be',
    Buffer.from(`PROXY UNKNOWN ${Array(2).fill(Array(8).fill('ffff').join(':')).join(' ')} 65535 65535\r\n`),
    undefined,
  ],
  ['2, TCP over IPv4', v2(0x21, 0x11, V4), '203.0.113.7'],
  ['2, TCP over IPv6', v2(0x21, 0x21, V6), '2001:db8::7'],
  ['2 with TLVs', v2(0x21, 0x11, Buffer.concat([V4, TLVS])), '203.0.113.7'],
  ['2, LOCAL', v2(0x20, 0x00), undefined],
  ['2, LOCAL with what is to be left aside', v2(0x20, 0x11, V4), undefined],
  ['2, of no family', v2(0x21, 0x00, TLVS), undefined],
  ['2, of a Unix socket', v2(0x21, 0x31, Buffer.alloc(216)), undefined],
]

describe('a header of the PROXY protocol', () => {
  it.each(whole)('of version %s is whole with its last byte, whatever follows', (_, header, address) => {
    for (let length = 0; length < header.length; length++) {
      expect(read(header.subarray(0, length))).toEqual({ kind: 'more' })
    }
    const expected = { kind: 'whole', bytes: header.length, address }
    expect(read(header)).toEqual(expected)
    expect(read(Buffer.concat([header, Buffer.from('\r\nGET / HTTP/1.1\r\n')]))).toEqual(expected)
    expect(isProxyHeader(header)).toBe(true)
  })

  it.each([
    ['a request', 'GET / HTTP/1.1\r\n'],
    ['a handshake of TLS', '\x16\x03\x01'],
    ['another word in its place', 'PROPFIND / HTTP/1.1'],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n'],
    ['lower case', 'proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n'],
    ['two spaces', 'PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n'],
    ['a port too few', 'PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n'],
    ['a port that is none', 'PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n'],
    ['an address of the other family', 'PROXY TCP4 ::1 ::1 1 1\r\n'],
    ['an address of the other family', 'PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n'],
    ['an address that is none', 'PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n'],
    ['a protocol that is none', 'PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n'],
    ['a bare line feed', `PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n${'x'.repeat(100)}`],
    ['a line without end', 'PROXY UNKNOWN '.padEnd(107, 'x')],
    ['version 3', v2(0x31, 0x11, V4)],
    ['a command that is none', v2(0x22, 0x11, V4)],
    ['datagrams', v2(0x21, 0x12, V4)],
    ['a family that is none', v2(0x21, 0x41, V4)],
    ['a length too short for its addresses', v2(0x21, 0x21, V4)],
    ['a TLV that ends beyond it', v2(0x21, 0x11, Buffer.concat([V4, TLVS.subarray(0, 5)]))],
    ['a piece of a TLV', v2(0x21, 0x11, Buffer.concat([V4, TLVS.subarray(0, 2)]))],
  ])('is invalid with %s', (_, bytes) => {
    expect(read(bytes)).toMatchObject({ kind: 'invalid' })
  })

  it('is refused by its length before it has come', () => {
    expect(read(v2(0x21, 0x11, Buffer.alloc(5_000)).subarray(0, 16), 4_096)).toMatchObject({ kind: 'invalid' })
  })
})
