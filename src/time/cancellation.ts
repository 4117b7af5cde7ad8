/** To dispose of a subscription ends it: its subscriber is not called any more. */
export type Subscription = Disposable

/**
 * Tells its subscribers, once and for good, that something is not wanted any more. It calls them in the order in which they
 * subscribed. Whoever subscribes later is called at once. An AbortSignal would do the same, but costs more, and every call
 * needs one.
 */
export class Cancellation {
  #isCancelled = false
  /** A ring of subscriptions. This link stands between the last and the first, so that each can be removed without a search. */
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

  /** Calls all subscribers, even if some of them throw. Throws the first of their exceptions at the end. */
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
