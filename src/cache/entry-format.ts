import type { Clock, EpochMs } from '../time/clock.ts'
import type { Stored } from './entry.ts'

/** Changed with every change of the format: entries of another version are not read. */
export const FORMAT = '2'

/** How long an answer of the store may be under way: more than that, its time and the wall clock's do not differ. */
const AWAY_MS = 1_000

interface Kept {
  readonly generation: string
  readonly keepMs: number
  readonly keptAt: EpochMs
}

/**
 * What is to be kept for so long, as bytes: the length of its head, the head as JSON, the body. `Clock.now` of two processes
 * can't be compared, so the head tells the age of the entry in the place of its birth.
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
 * Undefined for what is none of ours. The wall clock tells how long ago it was kept, and so does what the store says is left
 * of its time, which counts where the clock was set back: else an entry would be younger than it is, and fresh for longer.
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
