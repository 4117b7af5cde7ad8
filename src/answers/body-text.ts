import { parsedJson } from '../schema/json.ts'
import { pointerOf, someAt } from './pointer.ts'

/** Several limits, and the prices, may ask about one body. */
const parsed = new WeakMap<Buffer, unknown>()

const UTF8 = new TextDecoder()

/** The value of a body in JSON; undefined if it is none. A byte order mark before it is ignored (RFC 8259 §8.1). */
export function jsonOf(body: Buffer): unknown {
  return parsedJson(UTF8.decode(body))
}

/** The text at a JSON pointer of a request's body, such as the model that is asked for; undefined if there is none. */
export function bodyText(body: Buffer, pointer: string): string | undefined {
  if (!parsed.has(body)) parsed.set(body, jsonOf(body))
  let text: string | undefined
  someAt(parsed.get(body), pointerOf(pointer), (found) => {
    if (typeof found === 'string') text = found
    return text !== undefined
  })
  return text
}
