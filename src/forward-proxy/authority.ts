import { createPrivateKey, X509Certificate } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { give, makeFolder, type Owner, ownerAt } from '../files/owner.ts'
import type { Issuer, makeLeaf } from './certificates.ts'

/** The certificate and key with which the gateway terminates the TLS of a tunnel. */
export interface Leaf {
  /** PEM of the certificate, and of its issuer. */
  readonly cert: string
  readonly key: string
}

/** The folder of a CA can't be used. The message says why, and what to do. */
export class AuthorityError extends Error {}

/** The files in a CA's folder: what clients trust, and the key with the certificate that signs for hosts. */
const ROOT = 'ca.pem'
const ISSUER = 'issuer.pem'

/**
 * The local CA in a folder, which nobody but its owner can enter. It signs for the hosts that it was made for. Certificates for
 * hosts are made when they are needed, last a day, and are kept until half of that is over: one for each host at most.
 */
export class Authority {
  /** The file that clients are to trust. */
  readonly file: string
  readonly root: X509Certificate
  readonly hosts: readonly string[]
  readonly #issuer: Issuer
  readonly #make: (issuer: Issuer, host: string, now: number) => Leaf & { readonly renewAt: number }
  readonly #leaves = new Map<string, Leaf & { readonly renewAt: number }>()

  /** Opens the CA of a folder, and makes one for these hosts if there is none. Throws an `AuthorityError`. */
  static async open(folder: string, hosts: readonly string[]): Promise<Authority> {
    if (!existsSync(join(folder, ROOT))) await makeIn(folder, hosts)
    return Authority.read(folder)
  }

  /** Opens the CA of a folder. Throws an `AuthorityError` if there is none, or others can read its key. */
  static async read(folder: string): Promise<Authority> {
    const certificates = await import('./certificates.ts')
    try {
      const file = join(folder, ISSUER)
      if ((statSync(file).mode & 0o077) !== 0) {
        throw new AuthorityError(`${file} holds the key of the CA and can be read by others: chmod 600 it`)
      }
      const text = readFileSync(file, 'utf8')
      const issuer = { certificate: new X509Certificate(text).raw, key: createPrivateKey(text) }
      const root = new X509Certificate(readFileSync(join(folder, ROOT)))
      const hosts = certificates.hostsOf(issuer.certificate)
      if (hosts.includes('')) throw new Error('it is good for every host, so also take it out of every trust store')
      return new Authority(join(folder, ROOT), root, issuer, hosts, certificates.makeLeaf)
    } catch (error) {
      if (error instanceof AuthorityError) throw error
      const { message } = error as Error
      throw new AuthorityError(`the CA in ${folder} can't be used (${message}): npx sluice ca rotate makes a new one`)
    }
  }

  private constructor(
    file: string,
    root: X509Certificate,
    issuer: Issuer,
    hosts: readonly string[],
    make: typeof makeLeaf,
  ) {
    this.file = file
    this.root = root
    this.hosts = hosts
    this.#issuer = issuer
    this.#make = make
  }

  /** Why it can sign for no such host; undefined if it can. */
  whyNot(host: string, now = Date.now()): string | undefined {
    if (now >= this.root.validToDate.getTime()) return 'the local CA has expired: run npx sluice ca rotate'
    const isFor = this.hosts.some((name) => name === host || host.endsWith(`.${name}`))
    return isFor ? undefined : `the local CA was made before ${host} was an upstream's: run npx sluice ca rotate`
  }

  /** A certificate for a host that it can sign for. */
  leafFor(host: string, now = Date.now()): Leaf {
    const known = this.#leaves.get(host)
    if (known !== undefined && now < known.renewAt) return known
    const made = this.#make(this.#issuer, host, now)
    this.#leaves.set(host, made)
    return made
  }
}

/** Puts a new CA in the place of the one in the folder, if there is one. */
export async function rotateAuthority(folder: string, hosts: readonly string[]): Promise<Authority> {
  const before = `${folder}.before`
  rmSync(before, { recursive: true, force: true })
  if (existsSync(folder)) renameSync(folder, before)
  try {
    await makeIn(folder, hosts, existsSync(before) ? before : folder)
  } catch (error) {
    if (existsSync(before) && !existsSync(folder)) renameSync(before, folder)
    throw error
  }
  rmSync(before, { recursive: true, force: true })
  return Authority.read(folder)
}

/**
 * Makes the CA in a temporary folder and renames that into place. If several processes start at once, all use the CA of the
 * first. Its files get the owner of `old`.
 */
async function makeIn(folder: string, hosts: readonly string[], old = folder): Promise<void> {
  const { makeAuthority } = await import('./certificates.ts')
  const next = `${folder}.${process.pid}.tmp`
  try {
    const { root, issuer, issuerKey } = makeAuthority(hosts, Date.now())
    makeFolder(dirname(folder))
    const owner = ownerAt(old)
    rmSync(next, { recursive: true, force: true })
    mkdirSync(next, { mode: 0o700 })
    chmodSync(next, 0o700)
    writeNew(join(next, ISSUER), issuerKey + issuer, { mode: 0o600, owner })
    writeNew(join(next, ROOT), root, { mode: 0o644, owner })
    give(next, owner)
    renameSync(next, folder)
  } catch (error) {
    rmSync(next, { recursive: true, force: true })
    if (!existsSync(join(folder, ROOT))) {
      throw new AuthorityError(`no CA can be made in ${folder}: ${(error as Error).message}`)
    }
  }
}

function writeNew(path: string, text: string, { mode, owner }: { mode: number; owner: Owner | undefined }): void {
  const file = openSync(path, 'wx', mode)
  try {
    writeFileSync(file, text)
    give(file, owner)
  } finally {
    closeSync(file)
  }
}
