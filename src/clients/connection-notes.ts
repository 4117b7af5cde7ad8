/**
 * A note for each connection, which lasts as long as that. It is a property of the connection. A WeakMap of all connections would do,
 * too, but V8 goes through it while everything stands still: with 10,000 connections that took up to 20 ms of each collection.
 */
export class ConnectionNotes<Note> {
  readonly #property: symbol

  /** Notes with the same property replace each other, and each `ConnectionNotes` finds only its own. */
  constructor(property: symbol) {
    this.#property = property
  }

  get(connection: object): Note | undefined {
    return (connection as Noted<Note>)[this.#property]?.by(this)
  }

  set(connection: object, note: Note): void {
    ;(connection as Noted<Note>)[this.#property] = new Owned(this, note)
  }
}

interface Noted<Note> {
  [property: symbol]: Owned<Note> | undefined
}

/** Its fields are private, so that a connection that is printed shows no key. */
class Owned<Note> {
  readonly #owner: ConnectionNotes<Note>
  readonly #note: Note

  constructor(owner: ConnectionNotes<Note>, note: Note) {
    this.#owner = owner
    this.#note = note
  }

  by(owner: ConnectionNotes<Note>): Note | undefined {
    return this.#owner === owner ? this.#note : undefined
  }
}
