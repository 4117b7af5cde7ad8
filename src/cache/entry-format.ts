import type { Clock, EpochMs } from '../time/clock.ts'
import type { Stored } from './entry.ts'

/** The version of the format. Entries of another version are not read. */
export const FORMAT = '2'

/** How long an answer of the store may take: so far the age by the store and the age by the wall clock may differ. */
const AWAY_MS = 1_000

interface Kept {
  readonly generation: string
  readonly keepMs: number
  readonly keptAt: EpochMs
}

/**
 * Encodes what is stored for `keepMs` milliseconds: the length of the head, the head as JSON, the body. The head holds the age
 * of the entry and not its time of birth, because `Clock.now` of two processes cannot be compared.
 */
export function encode(generation: string, stored: Stored, keepMs: number, clock: Clock): Buffer {
  const { body, ...rest } =
    stored.kind === 'entry' ? { ...stored, bornAt: stored.bornAt - clock.now() } : { ...stored, body: EMPTY }
  const head = Buffer.from(JSON.stringify({ generation, keepMs, keptAt: clock.wall(), ...rest }))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(head.length)
  return Buffer.concat([length, head, body])
}

/**
 * Decodes what `encode` made; undefined for anything else. `leftMs` is the time for which the store will keep it. Two clocks say
 * how long ago it was stored: the wall clock, and the time that the store has left. The longer time counts. If the wall clock
 * was set back, it alone would make the entry younger than it is, and fresh for too long.
 */
export function decode(
  bytes: Buffer,
  leftMs: number,
  clock: Clock,
): { generation: string; stored: Stored } | undefined {
  if (bytes.length < 4) return undefined
  const end = 4 + bytes.readUInt32BE()
  try {
    const { generation, keepMs, keptAt, ...head } = JSON.parse(bytes.toString('utf8', 4, end)) as Kept & Stored
    if (head.kind !== 'entry') return { generation, stored: head }
    const agoMs = Math.max(0, clock.wall() - keptAt, keepMs - Math.max(0, leftMs) - AWAY_MS)
    const bornAt = clock.now() + head.bornAt - agoMs
    return { generation, stored: { ...head, bornAt, body: bytes.subarray(end) } }
  } catch {
    return undefined
  }
}

const EMPTY = Buffer.alloc(0)
