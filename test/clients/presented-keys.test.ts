import { describe, expect, it } from 'vitest'
import { readKeys } from '../../src/clients/presented-keys.ts'

function basic(pair: string): string {
  return `Basic ${Buffer.from(pair).toString('base64')}`
}

describe('the key in a header', () => {
  it.each<[string, string | undefined, string[]]>([
    ['K', undefined, ['K']],
    ['  K ', undefined, ['K']],
    ['Bearer K', 'Bearer', ['K']],
    ['bEaReR   K', 'Bearer', ['K']],
    ['token K', 'Token', ['K']],
    ['Token token=K', 'Token', ['K']],
    ['Token token="K"', 'Token', ['K']],
    ['token Token="K", nonce="1"', 'Token', ['K']],
    ['GenieKey K', 'GenieKey', ['K']],
    ['Other K', undefined, ['K', 'Other K']],
    ['my key', undefined, ['key', 'my key']],
    [basic('user:K'), 'Basic', ['K', 'user']],
    [basic('K:'), 'Basic', ['K']],
    [basic(':K'), 'Basic', ['K']],
    [basic('K'), 'Basic', ['K']],
    [basic('user:K:L'), 'Basic', ['K:L', 'user']],
    ['', undefined, []],
    ['Bearer', 'Bearer', []],
    ['Bearer  ', 'Bearer', []],
    ['Token token=', 'Token', []],
    ['Token token=""', 'Token', []],
    [basic(':'), 'Basic', []],
    ['Digest username="K"', 'Digest', []],
    ['AWS4-HMAC-SHA256 Credential=K/x', 'AWS4-HMAC-SHA256', []],
  ])('%j is, behind %s, one of %j', (value, scheme, keys) => {
    expect(readKeys(value)).toEqual({ scheme, keys })
  })
})
