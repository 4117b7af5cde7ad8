import { parsedJson } from '../schema/json.ts'
import { pointerOf, someAt } from './pointer.ts'

/** Several limits, and the prices, may ask about one body. */
const parsed = new WeakMap<Buffer, unknown>()

/** The text at a JSON pointer of a request's body, such as the model that is asked for; undefined if there is none. */
export function bodyText(body: Buffer, pointer: string): string | undefined {
  if (!parsed.has(body)) parsed.set(body, parsedJson(body.toString()))
  let text: string | undefined
  someAt(parsed.get(body), pointerOf(pointer), (found) => {
    if (typeof found === 'string') text = found
    return text !== undefined
  })
  return text
}
