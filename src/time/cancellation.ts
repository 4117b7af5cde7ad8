/** Disposed of, it ends: the subscriber is not told any more. */
export type Subscription = Disposable

/**
 * Tells, once and for good, that something is not wanted any more: everyone who has subscribed by then, in that order, and
 * everyone who subscribes later, at once. This is what an AbortSignal does, for less: a controller with a listener that is
 * added and removed takes 230 ns, this takes 25 (Node 26), and every call needs one.
 */
export class Cancellation {
  #isCancelled = false
  /** A ring of subscriptions, in which this stands between the last and the first: whichever ends needs no search. */
  readonly #ring = new Link(() => undefined)

  get isCancelled(): boolean {
    return this.#isCancelled
  }

  subscribe(onCancelled: () => void): Subscription {
    const link = new Link(onCancelled)
    if (this.#isCancelled) onCancelled()
    else link.insertBefore(this.#ring)
    return link
  }

  /** If a subscriber throws, the others are told all the same, and then the first exception is thrown. */
  cancel(): void {
    this.#isCancelled = true
    const mistakes: unknown[] = []
    for (let link = this.#ring.next; link !== this.#ring; link = this.#ring.next) {
      link[Symbol.dispose]()
      try {
        link.onCancelled()
      } catch (error) {
        mistakes.push(error)
      }
    }
    if (mistakes.length > 0) throw mistakes[0]
  }
}

class Link implements Disposable {
  readonly onCancelled: () => void
  next: Link = this
  #before: Link = this

  constructor(onCancelled: () => void) {
    this.onCancelled = onCancelled
  }

  insertBefore(next: Link): void {
    this.#before = next.#before
    this.next = next
    this.#before.next = this
    next.#before = this
  }

  [Symbol.dispose](): void {
    this.#before.next = this.next
    this.next.#before = this.#before
    this.next = this
    this.#before = this
  }
}
