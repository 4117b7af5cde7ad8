import type { IncomingMessage } from 'node:http'

/** More than this of a body is not kept: enough for any entity, and load tests may send bodies of any size. */
export const KEPT_BYTES = 65_536

export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** Reads a body to its end and gives its beginning, or undefined if the sender leaves before the end. */
export function readBody(request: IncomingMessage, onPiece?: (piece: Buffer) => void): Promise<string | undefined> {
  const pieces: Buffer[] = []
  let bytes = 0
  return new Promise((resolve) => {
    request.on('data', (piece: Buffer) => {
      onPiece?.(piece)
      if (bytes < KEPT_BYTES) pieces.push(piece)
      bytes += piece.length
    })
    request.once('end', () => resolve(Buffer.concat(pieces).toString()))
    request.once('close', () => resolve(undefined))
  })
}
