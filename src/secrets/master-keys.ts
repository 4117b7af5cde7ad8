import { createCipheriv, createDecipheriv, hash, randomBytes } from 'node:crypto'
import type { Secret } from '../schema/secret.ts'

/** A text that is encrypted with a master key. */
export interface Sealed {
  /** The id of the key that encrypted it. */
  readonly key: string
  readonly nonce: string
  /** Ciphertext and authentication tag, in Base64. */
  readonly text: string
}

/** A sealed text can't be opened: it needs another key, or it was changed, or it was moved to another name. */
export class SealError extends Error {}

const ALGORITHM = 'aes-256-gcm'
const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16

/** Reads 32 bytes from Base64, URL-safe or not, or from hex; undefined if they are not that many. */
export function parseMasterKey(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, /^[0-9a-fA-F]{64}$/.test(text) ? 'hex' : 'base64')
  return bytes.length === KEY_BYTES ? bytes : undefined
}

/**
 * Encrypts with the first of its keys, and decrypts with any of them: AES-256-GCM, with a random nonce each time. Key
 * id and name are associated data, so that a sealed text opens under its own name only. A key may get a new value meanwhile.
 */
export class MasterKeys {
  readonly #keys: readonly Secret[]

  constructor(keys: readonly Secret[]) {
    this.#keys = keys
    for (const key of keys) {
      key.whyNot = (text) => (parseMasterKey(text) === undefined ? NO_KEY : undefined)
      bytesOf(key)
    }
  }

  /** The id of the key that encrypts. */
  get first(): string {
    return idOf(bytesOf(this.#keys[0]!))
  }

  seal(name: string, text: string): Sealed {
    const key = bytesOf(this.#keys[0]!)
    const id = idOf(key)
    const nonce = randomBytes(NONCE_BYTES)
    const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES })
    cipher.setAAD(associatedData(id, name))
    const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()])
    return { key: id, nonce: nonce.toString('base64'), text: sealed.toString('base64') }
  }

  open(name: string, { key: id, nonce, text }: Sealed): string {
    const key = this.#keys.map(bytesOf).find((bytes) => idOf(bytes) === id)
    if (key === undefined) throw new SealError(`was sealed with another master key, ${id}`)
    try {
      const sealed = Buffer.from(text, 'base64')
      const options = { authTagLength: TAG_BYTES }
      const decipher = createDecipheriv(ALGORITHM, key, Buffer.from(nonce, 'base64'), options)
      decipher.setAAD(associatedData(id, name))
      decipher.setAuthTag(sealed.subarray(-TAG_BYTES))
      return Buffer.concat([decipher.update(sealed.subarray(0, -TAG_BYTES)), decipher.final()]).toString('utf8')
    } catch (error) {
      throw new SealError('is damaged, or was moved from another name', { cause: error })
    }
  }
}

const NO_KEY = 'a master key must be 32 bytes, in Base64 or hex'

function bytesOf(key: Secret): Buffer {
  const bytes = parseMasterKey(key.reveal())
  if (bytes === undefined) throw new SealError(NO_KEY)
  return bytes
}

/** Tells keys apart and reveals nothing of them, because a key is 256 random bits. */
function idOf(key: Buffer): string {
  return hash('sha256', Buffer.concat([Buffer.from('sluice master key\n'), key]), 'hex').slice(0, 12)
}

function associatedData(key: string, name: string): Buffer {
  return Buffer.from(`sluice\n${key}\n${name}`)
}
