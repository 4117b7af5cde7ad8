import { describe, expect, it } from 'vitest'
import { loadEnvironment } from '../../src/config/environment.ts'

function accountsOf(env: NodeJS.ProcessEnv) {
  return loadEnvironment(env)!.upstreams['harness']!.accounts
}

describe('the environment as configuration', () => {
  it('is none without its variables', () => {
    expect(loadEnvironment({ HARNESS_BASE_URL: ' ', HARNESS_API_KEY: '  ', PATH: '/bin' })).toBeUndefined()
  })

  it('serves the account of HARNESS_ACCOUNT_ID with HARNESS_API_KEY', () => {
    const accounts = accountsOf({ HARNESS_ACCOUNT_ID: 'AbC', HARNESS_API_KEY: 'key' })
    expect(accounts['prod']!.id).toBe('AbC')
    expect(accounts['prod']!.credential!.value!.reveal()).toBe('key')
  })

  it('adds an account for every suffix', () => {
    const accounts = accountsOf({
      HARNESS_ACCOUNT_ID: 'A',
      HARNESS_API_KEY: 'a',
      HARNESS_ACCOUNT_ID_STAGING: 'B',
      HARNESS_API_KEY_STAGING: 'b',
      HARNESS_API_KEY_DEV_2: 'pat.C.id.secret',
    })
    expect(Object.keys(accounts).toSorted()).toEqual(['dev_2', 'prod', 'staging'])
  })

  it('takes the URL of HARNESS_BASE_URL', () => {
    const env = { HARNESS_ACCOUNT_ID: 'A', HARNESS_API_KEY: 'a', HARNESS_BASE_URL: 'https://harness.internal' }
    const config = loadEnvironment(env)!
    expect(config.upstreams['harness']!.url).toBe('https://harness.internal')
    expect(config.defaultUpstream).toBe('harness')
  })

  it.each<[NodeJS.ProcessEnv, string]>([
    [{ HARNESS_ACCOUNT_ID: 'A' }, 'environment: HARNESS_ACCOUNT_ID is set, but HARNESS_API_KEY is not'],
    [
      { HARNESS_API_KEY: 'pat.id.secret' },
      'HARNESS_API_KEY is set, but HARNESS_ACCOUNT_ID is not, and this key does not carry it',
    ],
    [{ HARNESS_ACCOUNT_ID_X: 'A' }, 'HARNESS_ACCOUNT_ID_X is set, but HARNESS_API_KEY_X is not'],
    [
      { HARNESS_ACCOUNT_ID: 'A', HARNESS_API_KEY: ' \n' },
      'environment: HARNESS_ACCOUNT_ID is set, but HARNESS_API_KEY is not',
    ],
    [
      { HARNESS_ACCOUNT_ID: ' ', HARNESS_API_KEY: 'key' },
      'environment: HARNESS_API_KEY is set, but HARNESS_ACCOUNT_ID is not, and this key does not carry it',
    ],
    [{ HARNESS_BASE_URL: 'http://x' }, 'environment: HARNESS_BASE_URL is set, but HARNESS_API_KEY is not'],
  ])('refuses what is incomplete: %o', (env, expected) => {
    expect(() => loadEnvironment(env)).toThrow(expected)
  })

  it.each<[NodeJS.ProcessEnv, string]>([
    [
      { HARNESS_BASE_URL: 'notaurl', HARNESS_API_KEY: 'pat.A.id.secret' },
      'environment: HARNESS_BASE_URL: must be an http:// or https:// URL without user, query or fragment',
    ],
    [
      { HARNESS_ACCOUNT_ID_X: 'B', HARNESS_API_KEY_X: 'pat.A.id.secret' },
      'environment: HARNESS_ACCOUNT_ID_X: the credential belongs to another account',
    ],
    [{ HARNESS_ACCOUNT_ID: 'B', HARNESS_API_KEY: 'a\nb' }, 'environment: HARNESS_API_KEY: holds a control character'],
    [
      { HARNESS_ACCOUNT_ID_PRODUCTION_EUROPE: 'B', HARNESS_API_KEY_PRODUCTION_EUROPE: 'pat.A.id.secret' },
      'environment: HARNESS_ACCOUNT_ID_PRODUCTION_EUROPE: the credential belongs to another account',
    ],
    [
      { [`HARNESS_API_KEY_${'X'.repeat(64)}`]: 'pat.A.id.secret' },
      `environment: HARNESS_API_KEY_${'X'.repeat(64)}: the part behind HARNESS_API_KEY_ is the account's name, and must begin with a letter or digit and`,
    ],
    [
      { HARNESS_ACCOUNT_ID__X: 'A', HARNESS_API_KEY__X: 'key' },
      "environment: HARNESS_API_KEY__X: the part behind HARNESS_API_KEY_ is the account's name, and must begin with a letter or digit",
    ],
  ])('names the variable that is wrong: %o', (env, expected) => {
    expect(() => loadEnvironment(env)).toThrow(expected)
  })
})
