import type { Pointer } from './pointer.ts'

/** No name or number that is looked for has more bytes. Of a longer one only these are kept. */
const MOST_KEPT = 128
/** What is nested deeper is not read any more. */
const MOST_DEPTH = 500

const NUMBER = /^-?\d{1,20}(?:\.\d{1,40})?(?:[eE][-+]?\d{1,3})?$/
const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a]
const [OBJECT, ARRAY, OBJECT_END, ARRAY_END] = [0x7b, 0x5b, 0x7d, 0x5d]

/**
 * Finds numbers in JSON that comes in pieces. It keeps nothing else, so a body of any length takes the same memory. A library would
 * keep whole strings, which a hostile upstream could make as long as it likes. If there are several values in a row, as in NDJSON, or
 * a name comes twice, the last one counts. A number may stand in quotes.
 */
export class JsonNumbers {
  /** What was found, in the order of the pointers. */
  readonly found: (number | undefined)[]
  readonly #pointers: readonly Pointer[]
  readonly #deepest: number
  /** For each container around the current byte: its kind, and the name or index of its current member. */
  readonly #kinds: number[] = []
  readonly #names: string[] = []
  #isInString = false
  #isEscaped = false
  /** Whether the next string is a name. */
  #isName = false
  #text = ''
  #isKept = true
  #isLost = false

  constructor(pointers: readonly Pointer[]) {
    // Names are compared byte by byte.
    this.#pointers = pointers.map((pointer) => pointer.map((name) => Buffer.from(name).toString('latin1')))
    this.#deepest = Math.max(0, ...pointers.map(({ length }) => length))
    this.found = pointers.map(() => undefined)
  }

  write(piece: Uint8Array): void {
    for (let i = 0; i < piece.length && !this.#isLost; i++) {
      const byte = piece[i]!
      if (this.#isInString) this.#inString(byte)
      else if (byte > 0x20) this.#outside(byte)
      else this.#endScalar()
    }
  }

  /** Another text begins. What was found stays. */
  restart(): void {
    this.#endScalar()
    this.#kinds.length = 0
    this.#isInString = this.#isEscaped = this.#isName = this.#isLost = false
    this.#text = ''
  }

  #inString(byte: number): void {
    if (this.#isEscaped) this.#isEscaped = false
    else if (byte === BACKSLASH) this.#isEscaped = true
    else if (byte === QUOTE) {
      this.#isInString = false
      if (this.#isName) this.#name(this.#text)
      else this.#value(this.#text)
      this.#text = ''
      return
    }
    this.#keep(byte)
  }

  #outside(byte: number): void {
    switch (byte) {
      case QUOTE:
        this.#isInString = true
        this.#text = ''
        this.#isKept = this.#kinds.length <= this.#deepest
        return
      case OBJECT:
      case ARRAY:
        return this.#open(byte)
      case OBJECT_END:
      case ARRAY_END:
        this.#endScalar()
        this.#kinds.pop()
        this.#isName = false
        return
      case COMMA:
        this.#endScalar()
        return this.#next()
      case COLON:
        this.#isName = false
        return
      default:
        this.#isKept = true
        this.#keep(byte)
    }
  }

  #open(kind: number): void {
    if (this.#kinds.length === MOST_DEPTH) {
      this.#isLost = true
      return
    }
    // What comes before it can only be a byte order mark.
    this.#text = ''
    this.#kinds.push(kind)
    this.#isName = kind === OBJECT
    this.#name(kind === ARRAY ? '0' : '')
  }

  #next(): void {
    const depth = this.#kinds.length
    if (this.#kinds[depth - 1] === OBJECT) this.#isName = true
    else if (depth > 0 && depth <= this.#deepest) this.#name(String(Number(this.#names[depth - 1]) + 1))
  }

  #name(text: string): void {
    const depth = this.#kinds.length
    if (depth > 0 && depth <= this.#deepest) this.#names[depth - 1] = text.includes('\\') ? unescaped(text) : text
  }

  #keep(byte: number): void {
    if (this.#isKept && this.#text.length < MOST_KEPT) this.#text += String.fromCharCode(byte)
  }

  /** The end of a number, or of true, false or null. */
  #endScalar(): void {
    if (this.#text === '') return
    this.#value(this.#text)
    this.#text = ''
  }

  #value(text: string): void {
    const depth = this.#kinds.length
    for (const [i, pointer] of this.#pointers.entries()) {
      if (pointer.length !== depth || pointer.some((name, at) => name !== this.#names[at])) continue
      if (NUMBER.test(text)) this.found[i] = Number(text)
    }
  }
}

/**
 * A name without its escapes. Bytes beyond ASCII are kept one by one, as in Latin-1, so a name with escapes and such bytes is not
 * found.
 */
function unescaped(text: string): string {
  try {
    return JSON.parse(`"${text}"`) as string
  } catch {
    return text
  }
}
