const [HEADERS, RST_STREAM, SETTINGS] = [1, 3, 4]
const END_HEADERS = 4
const CANCEL = Buffer.of(0, 0, 0, 8)

/** What a client of HTTP/2 sends first. */
export const PREFACE = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(SETTINGS, 0, 0)])

/** In one packet: the head of a request that has a body, and that it is reset. */
export function resetRequest(fields: Readonly<Record<string, string>>): Buffer {
  const text = (value: string) => Buffer.concat([Buffer.of(value.length), Buffer.from(value)])
  const head = { ':method': 'POST', ':scheme': 'http', ':authority': 'x', ...fields }
  const block = Object.entries(head).map(([name, value]) => Buffer.concat([Buffer.of(0), text(name), text(value)]))
  return Buffer.concat([frame(HEADERS, END_HEADERS, 1, Buffer.concat(block)), frame(RST_STREAM, 0, 1, CANCEL)])
}

/** A frame of HTTP/2 (RFC 9113 §4.1). */
function frame(type: number, flags: number, stream: number, payload = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}
