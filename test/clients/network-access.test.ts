import { describe, expect, it } from 'vitest'
import { isAccessAllowed } from '../../src/clients/network-access.ts'

const TARGET = 'https://api.vendor.example/v2/things?x=1'

describe('a network access list', () => {
  it.each<[string, string[], string[], boolean]>([
    ['nothing listed', [], [], true],
    ['the exact host', ['api.vendor.example'], [], true],
    ['another case, a trailing dot', ['API.Vendor.example.'], [], true],
    ['a host below', ['vendor.example'], [], false],
    ['all hosts below', ['*.vendor.example'], [], true],
    ['all hosts below a part of a label', ['*.endor.example'], [], false],
    ['the apex itself', ['*.api.vendor.example'], [], true],
    ['a URL prefix', ['https://api.vendor.example/v2'], [], true],
    ['a URL prefix with a slash', ['https://api.vendor.example/v2/'], [], true],
    ['a URL prefix in the middle of a segment', ['https://api.vendor.example/v2/thing'], [], false],
    ['a URL prefix of another scheme', ['http://api.vendor.example/v2'], [], false],
    ['a URL prefix of another port', ['https://api.vendor.example:8443/'], [], false],
    ['blocked', [], ['api.vendor.example'], false],
    ['allowed and blocked', ['*.vendor.example'], ['https://api.vendor.example/v2/things'], false],
    ['an empty wildcard', ['*.'], [], false],
    ['an entry that does not parse', ['https://'], [], false],
  ])('%s', (_, allowed, blocked, expected) => {
    expect(isAccessAllowed(TARGET, [{ allowed, blocked }])).toBe(expected)
  })

  it.each([
    ['/v1/admin', false],
    ['/v1/admin/users', false],
    ['/v1/%61dmin', false],
    ['/v1/adm%69n/users', false],
    ['/v1//admin', false],
    ['//v1/./admin/', false],
    ['/v1/%2e/admin', false],
    ['/v1\\admin', false],
    ['/alias/v1/admin', false],
    ['/%61lias//v1/admin', false],
    ['/v1;x=1/admin/users', false],
    ['/v1/admin;x=1', false],
    ['/v1/.;x/;y/admin', false],
    ['/v1/other/..;x/admin', false],
    ['/v1/administration', true],
    ['/v1/administration;x=1', true],
    ['/v1/ad%2Fmin', true],
    ['/v1%2Fadmin', false],
    ['/v1%2fadmin%2Fusers', false],
    ['/v1%5Cadmin', false],
    ['/v1%252Fadmin', false],
    ['/v1/admin%3Bx=1', false],
    ['/v1/other/%252e%252e/admin', false],
    ['/v1/admin%2500', false],
    ['/v1/admin%25C0%25AFx', false],
    ['/alias%2Fv1/admin', false],
    ['/v1%2Fadministration', true],
    ['/other/v1/admin', true],
  ])('knows a blocked prefix again however its path is written: %s', (path, expected) => {
    const alias = { base: '', prefix: '/alias' }
    for (const entry of ['https://h/v1/admin', 'https://h/%761//admin/', 'https://h/alias/v1/admin']) {
      expect(isAccessAllowed(`https://h${path}`, [{ allowed: [], blocked: [entry] }], alias), entry).toBe(expected)
      const below = { base: '/base', prefix: '/alias' }
      const entryBelow = entry.replace('//h', '//h/base')
      expect(isAccessAllowed(`https://h/base${path}`, [{ allowed: [], blocked: [entryBelow] }], below)).toBe(expected)
    }
  })

  it.each([
    ['/v1;a=b/x', false, false],
    ['/v1/x', false, true],
    ['/v1;a=b/y', false, false],
    ['/v1/y;a=b', false, false],
    ['/v1/y', true, false],
    ['/v1/y/z;a=b', true, false],
    ['/v1/z;a=b', false, true],
  ])('looks at a path as it is and without parameters: %s', (path, whenAllowed, whenBlocked) => {
    const listed = ['https://h/v1;a=b/x', 'https://h/v1/y']
    expect(isAccessAllowed(`https://h${path}`, [{ allowed: listed, blocked: [] }])).toBe(whenAllowed)
    expect(isAccessAllowed(`https://h${path}`, [{ allowed: [], blocked: listed }])).toBe(whenBlocked)
  })

  it('allows an escaped slash only where the path is allowed with and without it as one', () => {
    const lists = (allowed: string) => [{ allowed: [`https://h${allowed}`], blocked: [] }]
    expect(isAccessAllowed('https://h/open/a%2Fb', lists('/open'))).toBe(true)
    expect(isAccessAllowed('https://h/open%2Fb', lists('/open'))).toBe(false)
    expect(isAccessAllowed('https://h/a%2Fb/c', lists('/a%2fb'))).toBe(true)
    expect(isAccessAllowed('https://h/a/b/c', lists('/a%2Fb'))).toBe(false)
    expect(isAccessAllowed('https://h/open/%252e%252e/x', lists('/open'))).toBe(false)
  })

  it('blocks an entry that has an escaped slash in both ways of writing it', () => {
    const blocked = [{ allowed: [], blocked: ['https://h/a%2Fb'] }]
    for (const path of ['/a%2Fb', '/a%2fb/c', '/a/b', '/a%252Fb']) {
      expect(isAccessAllowed(`https://h${path}`, blocked), path).toBe(false)
    }
    expect(isAccessAllowed('https://h/a', blocked)).toBe(true)
  })

  it('takes an alias itself as it is written', () => {
    const alias = { base: '', prefix: '/alias' }
    const blocked = [{ allowed: [], blocked: ['https://h/alias'] }]
    expect(isAccessAllowed('https://h/alias/x', blocked, alias)).toBe(false)
    expect(isAccessAllowed('https://h/x', blocked, alias)).toBe(true)
  })

  it('must be satisfied in every layer', () => {
    const allows = { allowed: ['*.vendor.example'], blocked: [] }
    const allowsOther = { allowed: ['other.example'], blocked: [] }
    const blocks = { allowed: [], blocked: ['api.vendor.example'] }
    expect(isAccessAllowed(TARGET, [allows, { allowed: [], blocked: [] }])).toBe(true)
    expect(isAccessAllowed(TARGET, [allows, allowsOther])).toBe(false)
    expect(isAccessAllowed(TARGET, [allows, blocks])).toBe(false)
  })

  it('denies what is no URL, and compares hosts in punycode', () => {
    expect(isAccessAllowed('not a url', [{ allowed: [], blocked: [] }])).toBe(false)
    expect(isAccessAllowed('https://xn--bcher-kva.example/', [{ allowed: ['bücher.example'], blocked: [] }])).toBe(true)
    expect(isAccessAllowed('https://BÜCHER.example/', [{ allowed: ['xn--bcher-kva.example'], blocked: [] }])).toBe(true)
  })
})
