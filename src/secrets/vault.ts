import { setTimeout as pause } from 'node:timers/promises'
import type { Agent } from 'undici'
import { allOfUndici } from '../packages/undici.ts'
import type { Clock, Timer } from '../time/clock.ts'
import { isObject, parsedJson } from '../schema/json.ts'
import type { VaultConfig } from '../schema/schema.ts'
import { backoffOf } from '../resilience/backoff.ts'
import type { Answer, SecretSource } from './source.ts'

const ANSWER_WITHIN_MS = 5_000
/** How often a read is tried, with a pause between that doubles. */
const TRIES = 3
const FIRST_PAUSE_MS = 200
/** The part of a token's lifetime after which it is renewed. */
const RENEW_AFTER = 2 / 3
/** A token is taken for one of at least so many seconds, while it can not be renewed: otherwise it would be tried ever faster. */
const SHORTEST_S = 15

interface Reply {
  readonly status: number
  readonly body: Record<string, unknown>
}

interface Lease {
  readonly client_token?: string
  readonly lease_duration?: number
  readonly ttl?: number
  readonly renewable?: boolean
}

/** A failure that a retry would not mend. Its message is complete, and shows no value. */
class VaultError extends Error {}

/**
 * The key/value engine (version 2) of HashiCorp Vault, over its HTTP API. References are `mount/path#field`. It logs in
 * with a token or an AppRole, renews the lease of its token, and logs in again when the lease ends. Static secrets have
 * no lease and are read again every `refresh`. Redirects are not followed, because the token would be sent along.
 * https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
 */
export class VaultSource implements SecretSource {
  readonly #config: VaultConfig
  readonly #clock: Clock
  readonly #agent: Agent
  #token: string | undefined
  #renewal: Timer | undefined
  #look: Timer | undefined
  #failures = 0
  #isClosed = false

  constructor(config: VaultConfig, clock: Clock) {
    this.#config = config
    this.#clock = clock
    const { Agent } = allOfUndici()
    this.#agent = new Agent({ connect: { timeout: ANSWER_WITHIN_MS, ...(config.ca ? { ca: config.ca } : {}) } })
  }

  async read(names: readonly string[]): Promise<ReadonlyMap<string, Answer>> {
    const paths = new Map<string, Promise<Answer | Record<string, unknown>>>()
    const answers = await Promise.all(
      names.map(async (name): Promise<[string, Answer]> => {
        const [, path, field] = /^([^#]+)#(.+)$/.exec(name) ?? []
        if (path === undefined || field === undefined || !path.includes('/'))
          return [name, { problem: `${name} must be mount/path#field` }]
        const found = await paths.getOrInsertComputed(path, () => this.#readPath(path))
        return [name, answerOf(found, path, field)]
      }),
    )
    const isFailing = answers.some(([, answer]) => 'problem' in answer)
    this.#failures = isFailing ? this.#failures + 1 : 0
    return new Map(answers)
  }

  watch(_: readonly string[], onChange: () => void): void {
    const wait = (): void => {
      if (this.#isClosed) return
      const { refresh } = this.#config
      // A Vault that is down is asked more often at first, and then ever less.
      const delayMs = this.#failures === 0 ? refresh : Math.min(refresh, backoffOf(this.#failures))
      this.#look = this.#clock.schedule(delayMs, () => {
        onChange()
        wait()
      })
    }
    wait()
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#look?.cancel()
    this.#renewal?.cancel()
    const isOwn = this.#config.token === undefined && this.#token !== undefined
    // A token from a log-in is of no more use to anybody.
    if (isOwn) await this.#revoke(this.#token)
    await this.#agent.close()
  }

  async #revoke(token: string | undefined): Promise<void> {
    await this.#send('POST', 'auth/token/revoke-self', undefined, token).catch(() => undefined)
  }

  /** Reads the fields at a path, and when they expire if they do. */
  async #readPath(path: string): Promise<Answer | Record<string, unknown>> {
    const slash = path.indexOf('/')
    const url = `${path.slice(0, slash)}/data${path.slice(slash)}`
    for (let attempt = 1; ; attempt++) {
      try {
        return contentOf(await this.#sendWithToken(url), path)
      } catch (error) {
        if (error instanceof VaultError) return { problem: error.message }
        if (attempt === TRIES || this.#isClosed) return { problem: `Vault ${(error as Error).message}` }
      }
      await pause(FIRST_PAUSE_MS * 2 ** (attempt - 1))
    }
  }

  async #sendWithToken(path: string): Promise<Reply> {
    await this.#logIn()
    const used = this.#token
    const reply = await this.#send('GET', path)
    // The token may have expired. With an AppRole, another log-in gets a new one; a configured one may have been written anew.
    if (reply.status !== 403 || this.#config.token?.reveal() === used) return reply
    if (this.#token === used) {
      this.#token = undefined
      // If only the path is denied, the token is good: otherwise every read would leave one behind.
      if (this.#config.token === undefined) await this.#revoke(used)
    }
    await this.#logIn()
    return this.#send('GET', path)
  }

  #loggingIn: Promise<void> | undefined

  /** Logs in once, however many reads wait for it. */
  #logIn(): Promise<void> {
    if (this.#token !== undefined) return Promise.resolve()
    return (this.#loggingIn ??= this.#logInNow().finally(() => (this.#loggingIn = undefined)))
  }

  async #logInNow(): Promise<void> {
    const { token, roleId, secretId, approlePath } = this.#config
    if (token !== undefined) {
      this.#token = token.reveal()
      const { status, body } = await this.#send('GET', 'auth/token/lookup-self').catch((error: unknown) => {
        // Otherwise the next try would take the token for looked up, and it would never be renewed.
        this.#token = undefined
        throw error
      })
      if (status === 200) this.#renewLater(body['data'] as Lease)
      return
    }
    const wanted = { role_id: roleId!.reveal(), secret_id: secretId?.reveal() }
    const { status, body } = await this.#send('POST', `auth/${approlePath}/login`, wanted)
    const auth = body['auth'] as Lease | undefined
    if (status !== 200 || auth?.client_token === undefined) throw failure(status, 'the log-in by AppRole')
    this.#token = auth.client_token
    this.#renewLater(auth)
  }

  #renewLater({ lease_duration, ttl, renewable }: Lease): void {
    const seconds = lease_duration ?? ttl ?? 0
    this.#renewal?.cancel()
    if (this.#isClosed || seconds <= 0 || renewable !== true) return
    this.#renewal = this.#clock.schedule(seconds * 1_000 * RENEW_AFTER, () => void this.#renew(seconds))
  }

  async #renew(seconds: number): Promise<void> {
    try {
      const { status, body } = await this.#send('POST', 'auth/token/renew-self', {})
      if (status === 200) return this.#renewLater(body['auth'] as Lease)
      // It can't be renewed any more. The next read logs in.
      if (this.#config.token === undefined) this.#token = undefined
    } catch {
      // A third of its lifetime is left for further tries.
      this.#renewLater({ ttl: Math.max(seconds / 4, SHORTEST_S), renewable: true })
    }
  }

  async #send(method: 'GET' | 'POST', path: string, body?: object, token = this.#token): Promise<Reply> {
    const { url, namespace } = this.#config
    const headers: Record<string, string> = { 'x-vault-request': 'true' }
    if (token !== undefined) headers['x-vault-token'] = token
    if (namespace !== undefined) headers['x-vault-namespace'] = namespace
    if (body !== undefined) headers['content-type'] = 'application/json'
    const target = `${url.replace(/\/$/, '')}/v1/${path.split('/').map(encodeURIComponent).join('/')}`
    const { status, content } = await allOfUndici()
      .request(target, {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        dispatcher: this.#agent,
        signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      })
      // A connection may also end within the body.
      .then(async (reply) => ({ status: reply.statusCode, content: parsedJson(await reply.body.text()) }))
      .catch((error: Error & { code?: string }) => {
        const why = error.name === 'TimeoutError' ? 'no answer in time' : (error.code ?? error.name)
        throw new Error(`could not be reached (${why})`, { cause: error })
      })
    // 429 and 5xx (sealed, standby, not initialised) are worth a retry.
    if (status === 429 || status >= 500) throw new Error(`answered ${status}`)
    return { status, body: isObject(content) ? content : {} }
  }
}

function contentOf({ status, body }: Reply, path: string): Record<string, unknown> {
  const content = body['data'] as { data?: Record<string, unknown> | null; metadata?: object } | undefined
  if (status === 404) throw new VaultError(`there is no secret ${path} in Vault, or its version was deleted`)
  if (status !== 200 || !content?.data) throw failure(status, path)
  const { deletion_time } = (content.metadata ?? {}) as { deletion_time?: string }
  const expiresAt = Date.parse(deletion_time ?? '')
  return Number.isNaN(expiresAt) ? { data: content.data } : { data: content.data, expiresAt }
}

function answerOf(found: Answer | Record<string, unknown>, path: string, field: string): Answer {
  if ('problem' in found) return found as Answer
  const { data, expiresAt } = found as { data: Record<string, unknown>; expiresAt?: number }
  const value = data[field]
  if (typeof value !== 'string') return { problem: `the secret ${path} in Vault has no text ${field}` }
  return { text: value, ...(expiresAt === undefined ? {} : { expiresAt }) }
}

function failure(status: number, what: string): VaultError {
  if (status === 403 || status === 400) return new VaultError(`Vault refuses ${what} (${status})`)
  if (status >= 300 && status < 400)
    return new VaultError(`Vault redirects ${what}: name the node that answers in secrets.vault.url`)
  return new VaultError(`Vault answered ${status} to ${what}`)
}
