import type { Clock } from '../../src/time/clock.ts'
import { startUpstream, type TestUpstream } from './gateway.ts'

interface Session {
  endsAt: number
  renewals: number
}

/**
 * What of HashiCorp Vault's HTTP API the gateway uses, as its documentation describes it: log-in by AppRole, tokens with a
 * lease that can be renewed (`api-docs/auth/approle`, `api-docs/auth/token`), and reads of the key/value engine version 2
 * (`api-docs/secret/kv/kv-v2`), with the status codes of `api-docs#http-status-codes`.
 */
export class VaultServer {
  /** By `mount/path`. */
  readonly secrets = new Map<string, { data: Record<string, unknown>; deletion_time?: string }>()
  readonly sessions = new Map<string, Session>()
  readonly roleId = 'role-id-secret'
  readonly secretId = 'secret-id-secret'
  isSealed = false
  /** A path that no token may read. */
  denied: string | undefined
  /** While it is there, answers wait for it. */
  hold: Promise<void> | undefined
  ttl = 600
  namespace: string | undefined
  upstream!: TestUpstream
  readonly #clock: Clock
  #opened = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  async start(): Promise<this> {
    this.upstream = await startUpstream(async ({ method, url, headers, body }, response) => {
      await this.hold
      const { status, reply } = this.#answer(method, url.replace(/^\/v1\//, ''), headers, body)
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end(reply === undefined ? undefined : JSON.stringify(reply))
    })
    return this
  }

  get url(): string {
    return this.upstream.url
  }

  get paths(): string[] {
    return this.upstream.seen.map(({ url }) => url)
  }

  openSession(): string {
    const token = `hvs.token-${this.#opened++}-secret`
    this.sessions.set(token, { endsAt: this.#clock.now() + this.ttl * 1_000, renewals: 0 })
    return token
  }

  #answer(
    method: string,
    path: string,
    headers: Record<string, unknown>,
    body: string,
  ): { status: number; reply?: object | undefined } {
    if (this.isSealed) return { status: 503, reply: { errors: ['Vault is sealed'] } }
    if (headers['x-vault-namespace'] !== this.namespace) return { status: 404, reply: { errors: [] } }
    if (method === 'POST' && path === 'auth/approle/login') {
      const { role_id, secret_id } = JSON.parse(body) as Record<string, string>
      if (role_id !== this.roleId || secret_id !== this.secretId)
        return { status: 400, reply: { errors: ['invalid role or secret ID'] } }
      return { status: 200, reply: { auth: this.#lease(this.openSession()) } }
    }
    const token = String(headers['x-vault-token'])
    const session = this.sessions.get(token)
    if (session === undefined || session.endsAt <= this.#clock.now())
      return { status: 403, reply: { errors: ['permission denied'] } }
    if (method === 'GET' && path === 'auth/token/lookup-self')
      return { status: 200, reply: { data: { ttl: this.ttl, renewable: true } } }
    if (method === 'POST' && path === 'auth/token/renew-self') {
      session.endsAt = this.#clock.now() + this.ttl * 1_000
      session.renewals++
      return { status: 200, reply: { auth: this.#lease(token) } }
    }
    if (method === 'POST' && path === 'auth/token/revoke-self') {
      this.sessions.delete(token)
      return { status: 204 }
    }
    const [, mount, rest] = /^([^/]+)\/data\/(.+)$/.exec(path) ?? []
    if (rest !== undefined && `${mount}/${rest}` === this.denied)
      return { status: 403, reply: { errors: ['permission denied'] } }
    const secret = this.secrets.get(`${mount}/${decodeURIComponent(rest ?? '')}`)
    if (method !== 'GET' || secret === undefined) return { status: 404, reply: { errors: [] } }
    const { data, deletion_time = '' } = secret
    return { status: 200, reply: { data: { data, metadata: { version: 1, deletion_time } }, lease_duration: 0 } }
  }

  #lease(client_token: string): object {
    return { client_token, lease_duration: this.ttl, renewable: true }
  }
}
