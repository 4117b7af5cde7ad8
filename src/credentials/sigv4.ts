import { createHmac, hash } from 'node:crypto'
import { whyNoHeaderValue, whyNoLine } from '../http/fields.ts'
import type { Clock } from '../time/clock.ts'
import type { Credential, RequestHead, Unproven } from './credential.ts'
import type { CredentialConfig } from '../schema/schema.ts'
import { type Secret, secretsIn } from '../schema/secret.ts'
import { SecretLook } from './secret-look.ts'
import { canonicalPath, canonicalQuery, canonicalValue, parametersOf } from './sigv4-canonical.ts'

export interface SigV4Config extends Required<
  Pick<CredentialConfig, 'accessKeyId' | 'secretAccessKey' | 'region' | 'service'>
> {
  readonly sessionToken?: Secret | undefined
}

export interface SigV4Options extends SigV4Config {
  /** The host of the upstream, with its port unless that is the default. A signature is valid for this host only. */
  readonly host: string
  readonly clock: Clock
}

const PAYLOAD = 'x-amz-content-sha256'
/** The client sends the body in frames that end with a checksum, and the body is not signed. */
const UNSIGNED_FRAMES = 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'

/**
 * Signs each request with AWS Signature Version 4: its method, path, query, host, every `x-amz-*` header, and the body.
 * If the client describes its body in `x-amz-content-sha256` (a hash, UNSIGNED-PAYLOAD, or unsigned `aws-chunked`
 * frames), that is kept. Otherwise a body in memory is hashed, and a body that streams is sent as UNSIGNED-PAYLOAD. S3
 * accepts UNSIGNED-PAYLOAD over TLS, but few other services do.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */
export class SigV4Credential implements Credential {
  readonly name: string
  readonly headerNames = ['authorization', 'x-amz-date', 'x-amz-security-token']
  readonly isRenewable = false
  readonly #options: SigV4Options
  readonly #look: SecretLook
  /** The signing key of one day, with the secret that it was derived from. */
  #key: { readonly day: string; readonly secret: string; readonly bytes: Buffer } | undefined

  constructor(name: string, options: SigV4Options) {
    this.name = name
    this.#options = options
    this.#look = new SecretLook(
      secretsIn([options.accessKeyId, options.secretAccessKey, options.sessionToken]),
      options.clock,
    )
    options.accessKeyId.whyNot = (id) => (/^\w{16,128}$/.test(id) ? undefined : 'the new value is no access key id')
    options.secretAccessKey.whyNot = whyNoLine
    if (options.sessionToken !== undefined) options.sessionToken.whyNot = whyNoHeaderValue
  }

  get version(): number {
    const { accessKeyId, secretAccessKey, sessionToken } = this.#options
    return accessKeyId.version + secretAccessKey.version + (sessionToken?.version ?? 0)
  }

  /** Only the session token: the secret key is never sent, and a signature is valid for one request only. */
  get exposed(): string {
    return this.#options.sessionToken?.reveal() ?? ''
  }

  refused(status: number, version: number): boolean {
    // AWS answers 403 where other vendors answer 401.
    return (status === 401 || status === 403) && (version !== this.version || this.#look.begin())
  }

  ready(wasRefused?: boolean): Promise<void> | undefined {
    return wasRefused === true ? this.#look.pending : undefined
  }

  /** Refuses a request that the client signed with a key of its own, and a path or query that services read differently. */
  whyNot({ path, query, headers }: RequestHead): string | undefined {
    return whyNotBody(headers[PAYLOAD]) ?? whyNotTarget(path, query.slice(1), this.#options.service === 's3')
  }

  addTo({ method, path, headers, body }: Unproven): void {
    const { accessKeyId, sessionToken, region, service, host, clock } = this.#options
    const time = new Date(clock.wall()).toISOString().replaceAll(/[-:]|\.\d{3}/g, '')
    headers.push('X-Amz-Date', time)
    if (sessionToken !== undefined) headers.push('X-Amz-Security-Token', sessionToken.reveal())
    const signed = new Map([['host', host]])
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i]!.toLowerCase()
      if (!name.startsWith('x-amz-')) continue
      const before = signed.get(name)
      const value = canonicalValue(headers[i + 1]!)
      signed.set(name, before === undefined ? value : `${before},${value}`)
    }
    let payload = signed.get(PAYLOAD)
    if (payload === undefined) {
      const isAtHand = body === null || Buffer.isBuffer(body)
      payload = isAtHand ? hash('sha256', body ?? '', 'hex') : 'UNSIGNED-PAYLOAD'
      headers.push('X-Amz-Content-Sha256', payload)
      signed.set(PAYLOAD, payload)
    }
    const names = [...signed.keys()].toSorted()
    const queryAt = path.indexOf('?')
    const canonical = [
      method,
      canonicalPath(queryAt < 0 ? path : path.slice(0, queryAt), service),
      queryAt < 0 ? '' : canonicalQuery(path.slice(queryAt + 1)),
      ...names.map((name) => `${name}:${signed.get(name)}`),
      '',
      names.join(';'),
      payload,
    ].join('\n')
    const day = time.slice(0, 8)
    const scope = `${day}/${region}/${service}/aws4_request`
    const toSign = ['AWS4-HMAC-SHA256', time, scope, hash('sha256', Buffer.from(canonical, 'latin1'), 'hex')].join('\n')
    const signature = createHmac('sha256', this.#keyOf(day)).update(toSign).digest('hex')
    headers.push(
      'Authorization',
      `AWS4-HMAC-SHA256 Credential=${accessKeyId.reveal()}/${scope}, SignedHeaders=${names.join(';')}, Signature=${signature}`,
    )
  }

  #keyOf(day: string): Buffer {
    const { secretAccessKey, region, service } = this.#options
    const secret = secretAccessKey.reveal()
    if (this.#key?.day !== day || this.#key.secret !== secret) {
      let bytes: Buffer = Buffer.from(`AWS4${secret}`)
      for (const part of [day, region, service, 'aws4_request'])
        bytes = createHmac('sha256', bytes).update(part).digest()
      this.#key = { day, secret, bytes }
    }
    return this.#key.bytes
  }
}

function whyNotBody(payload: string | string[] | undefined): string | undefined {
  if (payload === undefined || payload === 'UNSIGNED-PAYLOAD' || payload === UNSIGNED_FRAMES) return undefined
  if (typeof payload === 'string' && /^[\da-f]{64}$/i.test(payload)) return undefined
  if (typeof payload === 'string' && payload.startsWith('STREAMING-'))
    return `its body is signed piece by piece with a key of the client’s own (${PAYLOAD}: ${payload.slice(0, 64)}), and the gateway signs with another: turn off signed chunks in the client, and send UNSIGNED-PAYLOAD or ${UNSIGNED_FRAMES}`
  return `${PAYLOAD} must be the SHA-256 of the body in hex, UNSIGNED-PAYLOAD or ${UNSIGNED_FRAMES}`
}

function whyNotTarget(path: string, query: string, isS3: boolean): string | undefined {
  if (isS3 && path.includes('+'))
    return 'S3 reads "+" in a path as a space, and others do not: write %2B for a plus sign, and %20 for a space'
  if (query === '') return undefined
  if (/%(?![\da-f]{2})/i.test(query)) return 'the query must be well-formed: "%" only before two hex digits'
  const names = parametersOf(query).map(([name]) => name)
  if (names.includes('X-Amz-Signature'))
    return 'the URL is presigned with a key of the client’s own, and the gateway signs with another: leave out all X-Amz-… parameters of the signature'
  if (isS3 && new Set(names).size < names.length)
    return 'a parameter comes twice in the query, of which S3 signs only one, and others both'
  return undefined
}
