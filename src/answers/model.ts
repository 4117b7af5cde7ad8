import { pointerOf, someAt } from './pointer.ts'

/** The text to which a JSON pointer leads in a request's body, such as the name of its model; undefined if there is none. */
export function modelIn(body: Buffer, pointer: string): string | undefined {
  let named: string | undefined
  try {
    someAt(JSON.parse(body.toString()), pointerOf(pointer), (value) => {
      if (typeof value === 'string') named = value
      return named !== undefined
    })
  } catch {
    return undefined
  }
  return named
}
