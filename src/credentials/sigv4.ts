import { hash } from 'node:crypto'
import aws4 from 'aws4'
import type { Clock } from '../clock.ts'
import type { Credential, Unproven } from './credential.ts'
import type { Secret } from './secret.ts'

export interface SigV4Options {
  readonly accessKeyId: string
  readonly secretAccessKey: Secret
  readonly sessionToken: Secret | undefined
  readonly region: string
  readonly service: string
  /** Of the upstream, with its port unless that is the usual one: the signature is good for no other. */
  readonly host: string
  readonly clock: Clock
}

/**
 * Signs each request with AWS Signature Version 4: method, path, query, host, every `x-amz-*` header, and the body where it is
 * at hand. Of a body that streams it says UNSIGNED-PAYLOAD, which S3 takes over TLS, and few other services.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */
export class SigV4Credential implements Credential {
  readonly name: string
  readonly headerNames = ['authorization', 'x-amz-date', 'x-amz-content-sha256', 'x-amz-security-token']
  readonly isRenewable = false
  readonly #options: SigV4Options

  constructor(name: string, options: SigV4Options) {
    this.name = name
    this.#options = options
  }

  get version(): number {
    const { secretAccessKey, sessionToken } = this.#options
    return secretAccessKey.version + (sessionToken?.version ?? 0)
  }

  /** The key itself is not sent, and a signature is good for one request only. */
  get exposed(): string {
    return this.#options.sessionToken?.reveal() ?? ''
  }

  refused(status: number, version: number): boolean {
    // AWS answers 403 where others answer 401.
    return (status === 401 || status === 403) && version !== this.version
  }

  addTo({ method, path, headers, body }: Unproven): void {
    const { accessKeyId, secretAccessKey, sessionToken, region, service, host, clock } = this.#options
    const date = new Date(clock.wall()).toISOString().replaceAll(/[-:]|\.\d{3}/g, '')
    const isAtHand = body === null || Buffer.isBuffer(body)
    const own: Record<string, string> = {
      'X-Amz-Date': date,
      'X-Amz-Content-Sha256': isAtHand ? hash('sha256', body ?? '', 'hex') : 'UNSIGNED-PAYLOAD',
      ...(sessionToken === undefined ? {} : { 'X-Amz-Security-Token': sessionToken.reveal() }),
    }
    const signed: Record<string, string> = { Host: host, ...own }
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i]!.toLowerCase()
      if (name.startsWith('x-amz-'))
        signed[name] = name in signed ? `${signed[name]},${headers[i + 1]}` : headers[i + 1]!
    }
    const key = { accessKeyId, secretAccessKey: secretAccessKey.reveal() }
    const { Authorization } = aws4.sign({ service, region, host, method, path, headers: signed }, key).headers!
    for (const name in own) headers.push(name, own[name]!)
    headers.push('Authorization', String(Authorization))
  }
}
