import fs from 'node:fs'
import { dirname, resolve } from 'node:path'

export interface Owner {
  readonly uid: number
  readonly gid: number
  /** Whether it has what is to be replaced, and not just the folder. */
  readonly isOfOld: boolean
}

/**
 * Who is to own what will stand at a place: the owner of what stands there, or else of the folder. Undefined unless we are root,
 * who alone can give files away, and has to: what a command of root writes would otherwise be lost to a gateway that runs as
 * another user. Undefined also for a root that is kept out of what others own, as in a container without CAP_DAC_OVERRIDE: a gateway
 * of it could not open again what it gave away.
 */
export function ownerAt(place: string): Owner | undefined {
  if (process.getuid?.() !== 0 || isKeptOut()) return undefined
  const old = fs.lstatSync(place, { throwIfNoEntry: false })
  const { uid, gid } = old ?? fs.statSync(dirname(place))
  return { uid, gid, isOfOld: old !== undefined }
}

/** Gives away a folder by its path, or an open file: the path of a file may lead elsewhere meanwhile. */
export function give(made: number | string, owner: Owner | undefined): void {
  if (owner === undefined) return
  const { uid, gid, isOfOld } = owner
  const now = typeof made === 'number' ? fs.fstatSync(made) : fs.lstatSync(made)
  if (now.uid === uid && now.gid === gid) return
  try {
    if (typeof made === 'number') fs.fchownSync(made, uid, gid)
    else fs.lchownSync(made, uid, gid)
  } catch (error) {
    // The root of a container may not be allowed to, or not know the owner. But what somebody has already must not be taken away.
    if (isOfOld) throw error
  }
}

const CAP_DAC_OVERRIDE = 1n << 1n

/** Only Linux takes from root what makes it root (capabilities(7)), and tells of it there. Where nothing can be read, it is not known. */
function isKeptOut(): boolean {
  if (process.platform !== 'linux') return false
  let status = ''
  try {
    status = fs.readFileSync('/proc/self/status', 'latin1')
  } catch {
    return false
  }
  const [, effective] = /^CapEff:\s*([0-9a-f]+)$/m.exec(status) ?? []
  return effective !== undefined && (BigInt(`0x${effective}`) & CAP_DAC_OVERRIDE) === 0n
}

/** Makes a folder that only its owner can enter, and those above it that are missing. The folder that was there says whose they are. */
export function makeFolder(path: string): void {
  let first = resolve(path)
  while (!fs.existsSync(dirname(first))) first = dirname(first)
  const owner = ownerAt(first)
  if (fs.mkdirSync(path, { recursive: true, mode: 0o700 }) === undefined) return
  for (let folder = resolve(path); folder.length >= first.length; folder = dirname(folder)) give(folder, owner)
}
