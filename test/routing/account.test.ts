import { describe, expect, it } from 'vitest'
import { accountInPath, chooseAccount, collectClaims } from '../../src/routing/account.ts'
import { PathPattern } from '../../src/routing/path-pattern.ts'

const rules = {
  headers: ['harness-account'],
  query: new Set(['accountIdentifier', 'accountId']),
  inPath: (path: string) => /^\/accounts\/([^/]+)/.exec(path)?.slice(1) ?? [],
}

describe('account claims', () => {
  it.each([
    ['nothing', '/x', '', {}, []],
    ['a header', '/x', '', { 'harness-account': 'A' }, ['A']],
    ['a path', '/accounts/A/x', '', {}, ['A']],
    ['an encoded path', '/accounts/%41/x', '', {}, ['A']],
    ['a query parameter', '/x', 'a=1&accountId=A&b', {}, ['A']],
    ['a parameter given twice', '/x', 'accountId=A&accountId=B', {}, ['A', 'B']],
    ['an encoded parameter', '/x', 'account%49d=%41', {}, ['A']],
    ['an empty parameter', '/x', 'accountId=&accountIdentifier', {}, []],
    ['a parameter of another name', '/x', 'xaccountId=A&accountid=B', {}, []],
    ['a broken encoding', '/x', 'accountId=%zz', {}, ['%zz']],
    ['several places', '/accounts/A', 'accountIdentifier=B', { 'harness-account': 'C' }, ['C', 'A', 'B']],
  ])('are found in %s', (_, path, query, headers, expected) => {
    expect(collectClaims(rules, [path], query, headers).map(({ id }) => id)).toEqual(expected)
  })
})

it('finds no claim in a header that nobody sent, whatever its name means in JavaScript', () => {
  expect(collectClaims({ ...rules, headers: ['constructor', '__proto__'] }, ['/x'], '', {})).toEqual([])
})

describe('the choice of an account', () => {
  const prod = { name: 'prod', id: 'P' }
  const staging = { name: 'staging', id: 'S' }
  const accounts = new Map([prod, staging].map((account) => [account.name, account]))
  const all = (): boolean => true
  const only = (name: string) => (account: { name: string }) => account.name === name
  const claim = (id: string) => [{ place: 'path', id }]

  it.each([
    ['the one asked for', all, 'staging', [], { kind: 'chosen', account: staging }],
    ['none that is unknown', all, 'dev', [], { kind: 'unknown', wanted: 'dev' }],
    ['none that the client may not use', only('prod'), 'staging', [], { kind: 'forbidden', wanted: 'staging' }],
    ['the only one that the client may use', only('staging'), undefined, [], { kind: 'chosen', account: staging }],
    ['the one that is claimed', all, undefined, claim('S'), { kind: 'chosen', account: staging }],
    ['none without a hint', all, undefined, [], { kind: 'undecided' }],
    ['none that nobody has', all, undefined, claim('X'), { kind: 'unknown_claim', claim: claim('X')[0] }],
    ['none where the client may use none', () => false, undefined, claim('S'), { kind: 'undecided' }],
    ['none against a claim', all, 'prod', claim('S'), { kind: 'conflict', account: prod }],
    [
      'none against a claim that the client may not make',
      only('prod'),
      undefined,
      claim('S'),
      { kind: 'conflict', account: prod },
    ],
    ['none when claims disagree', all, undefined, [...claim('P'), ...claim('S')], { kind: 'conflict', account: prod }],
  ])('is %s', (_, isAllowed, wanted, claims, expected) => {
    expect(chooseAccount(accounts, isAllowed, wanted, claims)).toMatchObject(expected)
  })

  it('does not check claims against an account whose id is unknown', () => {
    const open = { name: 'open', id: undefined }
    expect(chooseAccount(new Map([['open', open]]), all, undefined, claim('X'))).toEqual({
      kind: 'chosen',
      account: open,
    })
  })
})

describe('a path pattern', () => {
  it.each([
    ['/accounts/{account}', '/accounts/A', 'A'],
    ['/accounts/{account}', '/accounts/A/', 'A'],
    ['/accounts/{account}', '/accounts/A/x', undefined],
    ['/accounts/{account}/*', '/accounts/A/x/y', 'A'],
    ['/v1/{version}/{account}/x', '/v1/2/A/x', 'A'],
    ['/a.b/{account}', '/aXb/A', undefined],
    ['/x/org-{account}/*', '/x/org-A/y', 'A'],
    ['/x/{account}*', '/x/A', 'A'],
    ['/x/{account}', '/x/%C3%A9', 'é'],
    ['/x/{account}', '/x/a%2Fb', 'a%2Fb'],
  ])('%s names in %s: %s', (pattern, path, id) => {
    expect(accountInPath(new PathPattern(pattern), path)).toBe(id)
  })
})
