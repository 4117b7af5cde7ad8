import { setTimeout as pause } from 'node:timers/promises'

/** How long work that can wait may hold the event loop at a time, in milliseconds. */
const MOST_MS = 0.5
/**
 * How long the event loop is then left to calls, in milliseconds. A call takes several turns of the event loop. If the
 * work went on in the next turn, each turn of the call would come after a part of the work, and slow calls would take
 * far longer.
 */
const PAUSE_MS = 1

/**
 * How many characters are written at a time. To append to a string is cheap. To copy it out is not, and that happens
 * when the piece is sent.
 */
const MOST_CHARACTERS = 32_768

/** The time that long work may take at once before it lets calls go on. The work has to check it often. */
export class TimeSlice {
  #startedAt = performance.now()

  get isOver(): boolean {
    return performance.now() - this.#startedAt >= MOST_MS
  }

  /** Whether a piece of text ends here. */
  isEnough(text: string): boolean {
    return text.length >= MOST_CHARACTERS || this.isOver
  }

  /** Lets calls go on if the slice is over, and then begins the next one. */
  async endIfOver(): Promise<void> {
    if (!this.isOver) return
    await pause(PAUSE_MS)
    this.#startedAt = performance.now()
  }
}
