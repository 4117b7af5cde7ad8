import type { Stored } from './entry.ts'

/** Changed with every change of the format: entries of another version are not read. */
export const FORMAT = '1'

/** An entry as bytes: the length of its head, the head as JSON, the body. */
export function encode(generation: string, stored: Stored): Buffer {
  const { body = EMPTY, ...rest } = stored.kind === 'entry' ? stored : { ...stored, body: EMPTY }
  const head = Buffer.from(JSON.stringify({ generation, ...rest }))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(head.length)
  return Buffer.concat([length, head, body])
}

/** Undefined for what is none of ours. */
export function decode(bytes: Buffer): { generation: string; stored: Stored } | undefined {
  if (bytes.length < 4) return undefined
  const end = 4 + bytes.readUInt32BE()
  try {
    const { generation, ...head } = JSON.parse(bytes.toString('utf8', 4, end)) as { generation: string } & Stored
    return { generation, stored: head.kind === 'entry' ? { ...head, body: bytes.subarray(end) } : head }
  } catch {
    return undefined
  }
}

const EMPTY = Buffer.alloc(0)
