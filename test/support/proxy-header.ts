/** A header of the PROXY protocol, version 2, whatever its parts. */
export function proxyHeaderV2(command: number, family: number, rest: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.from('\r\n\r\n\0\r\nQUIT\n\0\0\0\0', 'latin1')
  head[12] = command
  head[13] = family
  head.writeUInt16BE(rest.length, 14)
  return Buffer.concat([head, rest])
}
