import type { Fields } from '../http/fields.ts'
import { NamesByPlace } from '../http/names-by-place.ts'

const lowerCase = new NamesByPlace((name) => name.toLowerCase())

/**
 * Reads the fields of a response from names and values in turn. The result is the same as undici's, at less cost. Nearly always all
 * names and values lie in one piece of memory. That piece is decoded once, and each name and value is cut from the text.
 */
export function readFields(raw: readonly Buffer[]): Fields {
  const fields: Fields = {}
  const [first] = raw
  if (first === undefined) return fields
  const last = raw.at(-1)!
  const { buffer, byteOffset: start } = first
  const end = last.byteOffset + last.length
  // If the head came in several pieces, some names and values lie elsewhere. `textOf` decodes those one by one.
  const text = last.buffer === buffer && end > start ? Buffer.from(buffer, start, end - start).toString('latin1') : ''
  const textOf = (piece: Buffer): string => {
    const at = piece.byteOffset - start
    const isInText = piece.buffer === buffer && at >= 0 && at + piece.length <= text.length
    return isInText ? text.slice(at, at + piece.length) : piece.toString('latin1')
  }
  for (let i = 0; i < raw.length; i += 2) add(fields, lowerCase.at(i / 2, textOf(raw[i]!)), textOf(raw[i + 1]!))
  return fields
}

function add(fields: Fields, name: string, value: string): void {
  const known = fields[name]
  if (known === undefined) fields[name] = value
  // The name is one that every object inherits, such as `constructor` or `__proto__`.
  else if (!Object.hasOwn(fields, name))
    Object.defineProperty(fields, name, { value, enumerable: true, configurable: true, writable: true })
  else if (typeof known === 'string') fields[name] = [known, value]
  else known.push(value)
}
