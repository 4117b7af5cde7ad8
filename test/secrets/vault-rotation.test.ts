import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import type { IncomingHttpHeaders } from 'node:http'
import { join } from 'node:path'
import { jwtVerify } from 'jose'
import { expect, it } from 'vitest'
import { stringify } from 'yaml'
import { systemClock } from '../../src/time/clock.ts'
import { newFolder, startConfigured, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { loadConfigFile } from '../support/load-config.ts'
import { bearerOf } from '../support/token-server.ts'
import { VaultServer } from '../support/vault-server.ts'

const CALLS = 10
const REFERENCE = '${vault:kv/api#key}'
const KEYS = [1, 2].map(() => generateKeyPairSync('ec', { namedCurve: 'P-256' }))
const PEMS = KEYS.map(({ privateKey }) => privateKey.export({ type: 'pkcs8', format: 'pem' }))

/** How a credential is made of the secret in Vault, and how its vendor tells the new one. */
interface Kind {
  readonly credential: (tokenUrl: string) => object
  readonly isNew: (headers: IncomingHttpHeaders) => boolean | Promise<boolean>
  readonly status: number
  readonly values?: readonly string[]
}

const AWS = { type: 'sigv4', secretAccessKey: 'signing-secret', region: 'eu-west-1', service: 's3' }
const kinds: Record<string, Kind> = {
  header: {
    credential: () => ({ header: 'x-key', value: REFERENCE }),
    isNew: (headers) => headers['x-key'] === 'AKIDNEWNEWNEWNEW',
    status: 401,
  },
  'basic, whose user name is in Vault': {
    credential: () => ({ type: 'basic', username: REFERENCE, password: 'of-the-configuration' }),
    isNew: ({ authorization }) => atob(authorization!.slice('Basic '.length)).startsWith('AKIDNEWNEWNEWNEW:'),
    status: 401,
  },
  sigv4: {
    credential: () => ({ ...AWS, accessKeyId: REFERENCE }),
    isNew: ({ authorization }) => authorization!.includes('Credential=AKIDNEWNEWNEWNEW/'),
    status: 403,
  },
  oauth2: {
    credential: (tokenUrl) => ({ type: 'oauth2', tokenUrl, clientId: 'me', clientSecret: REFERENCE }),
    isNew: (headers) => bearerOf(headers)?.startsWith('of-AKIDNEWNEWNEWNEW') === true,
    status: 401,
  },
  jwt: {
    credential: () => ({ type: 'jwt', key: REFERENCE, issuer: 'app' }),
    isNew: (headers) => isSignedBy(KEYS[1]!.publicKey, bearerOf(headers)!),
    status: 401,
    values: PEMS,
  },
}

function isSignedBy(key: KeyObject, token: string): Promise<boolean> {
  return jwtVerify(token, key).then(
    () => true,
    () => false,
  )
}

it.each(Object.entries(kinds))('a rotation in Vault loses no call in flight, however many: %s', async (_, kind) => {
  const [old, next] = kind.values ?? ['AKIDOLDOLDOLDOLD', 'AKIDNEWNEWNEWNEW']
  const vault = await new VaultServer(systemClock).start()
  vault.secrets.set('kv/api', { data: { key: old } })
  // A token endpoint that takes only the secret that is in force, and tells by the token which one that was.
  let inForce = old
  const endpoint = await startUpstream(({ headers }, response) => {
    const secret = atob(headers.authorization!.slice('Basic '.length)).slice('me:'.length)
    const isGood = secret === inForce
    const answer = isGood ? { access_token: `of-${secret}`, token_type: 'Bearer' } : { error: 'invalid_client' }
    response.writeHead(isGood ? 200 : 401, { 'content-type': 'application/json' }).end(JSON.stringify(answer))
  })
  const allHere = Promise.withResolvers<void>()
  let isRotated = false
  let refused = 0
  const upstream = await startUpstream(async ({ headers }, response) => {
    if (!isRotated || (await kind.isNew(headers))) return void response.end()
    if (upstream.seen.length === 1 + CALLS) allHere.resolve()
    await allHere.promise
    response.writeHead(kind.status).end(() => refused++)
  })
  const folder = newFolder()
  const file = join(folder, 'sluice.yaml')
  const config = {
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    secrets: { vault: { url: vault.url, roleId: vault.roleId, secretId: vault.secretId, refresh: '1h' } },
    upstreams: {
      api: {
        url: upstream.url,
        accounts: { main: { credential: kind.credential(endpoint.url) } },
        limits: { read: [], write: [] },
        retry: { retries: 0 },
      },
    },
  }
  writeFileSync(file, stringify(config))
  const fetched = new Map([['vault:kv/api#key', { text: old! }]])
  const gateway = await startConfigured(loadConfigFile(file, { fetched }))
  expect((await call(gateway.url, '/api/x')).status).toBe(200)
  inForce = next
  isRotated = true
  vault.secrets.set('kv/api', { data: { key: next } })
  const held = Promise.withResolvers<void>()
  vault.hold = held.promise
  const calls = Array.from({ length: CALLS }, () => call(gateway.url, '/api/x'))
  await expect.poll(() => refused).toBe(CALLS)
  held.resolve()
  expect((await Promise.all(calls)).map(({ status }) => status)).toEqual(calls.map(() => 200))
})
