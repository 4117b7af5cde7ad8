import type { Clock, EpochMs, Timer } from '../../src/time/clock.ts'

interface Event {
  readonly at: number
  readonly order: number
  run: (() => void | Promise<void>) | undefined
}

/** When every world begins: a multiple of no window in particular. */
const BEGINNING = 1_700_000_012_345

/**
 * Virtual time. Events run in the order of their instants; what one sets off in promises is finished before the next one
 * runs, so that a case goes the same way each time. Nothing waits for real time.
 */
export class World {
  now = BEGINNING
  readonly #heap: Event[] = []
  #order = 0

  /** Runs `run` at that instant, or now if it has passed. An event that returns a promise holds time until it is done. */
  at(time: number, run: () => void | Promise<void>): Timer {
    const event: Event = { at: Math.max(time, this.now), order: this.#order++, run }
    push(this.#heap, event)
    return { cancel: () => void (event.run = undefined) }
  }

  async runUntil(end: number): Promise<void> {
    await drained()
    for (let event = this.#heap[0]; event !== undefined && event.at <= end; event = this.#heap[0]) {
      pop(this.#heap)
      if (event.run === undefined) continue
      this.now = event.at
      const done = event.run()
      if (done !== undefined) await done
      await drained()
    }
    this.now = end
  }
}

/** Whose wall clock is set now and then. */
export interface Machine {
  wallAheadMs: number
}

/** A process on some machine: its clock may be off by `skewMs`, it may stand still for a while, and it may die. */
export class Process {
  readonly clock: Clock
  readonly #world: World
  #isDead = false
  #isPaused = false
  readonly #late: { isTimer: boolean; run: () => void }[] = []

  constructor(world: World, skewMs: number, machine: Machine = { wallAheadMs: 0 }) {
    this.#world = world
    this.clock = {
      now: () => world.now + skewMs,
      wall: () => (world.now + skewMs + machine.wallAheadMs) as EpochMs,
      boot: 'simulated',
      schedule: (delayMs, wake) => world.at(world.now + Math.max(0, delayMs), () => this.#wake(true, wake)),
      soon: (run) => void world.at(world.now, () => this.#wake(true, run)),
    }
  }

  get isDead(): boolean {
    return this.#isDead
  }

  /** Something reaches this process from outside. */
  receive(at: number, run: () => void): void {
    this.#world.at(at, () => this.#wake(false, run))
  }

  /** Whatever is due meanwhile happens afterwards, all at once: the timers before the rest, as in Node, or in order. */
  pause(ms: number, areTimersFirst: boolean): void {
    this.#isPaused = true
    this.#world.at(this.#world.now + ms, () => {
      this.#isPaused = false
      const late = this.#late.splice(0)
      if (areTimersFirst) late.sort((a, b) => Number(b.isTimer) - Number(a.isTimer))
      for (const { run, isTimer } of late) this.#world.at(this.#world.now, () => this.#wake(isTimer, run))
    })
  }

  die(): void {
    this.#isDead = true
    this.#late.length = 0
  }

  #wake(isTimer: boolean, run: () => void): void {
    if (this.#isDead) return
    if (this.#isPaused) this.#late.push({ isTimer, run })
    else run()
  }
}

/** Until no promise is ready to go on: Node runs ticks only when it has no microtask left. */
function drained(): Promise<void> {
  return new Promise((resolve) => process.nextTick(resolve))
}

function push(heap: Event[], event: Event): void {
  let i = heap.length
  heap.push(event)
  while (i > 0) {
    const parent = (i - 1) >> 1
    if (!isBefore(event, heap[parent]!)) break
    heap[i] = heap[parent]!
    i = parent
  }
  heap[i] = event
}

function pop(heap: Event[]): void {
  const last = heap.pop()!
  const { length } = heap
  if (length === 0) return
  let i = 0
  for (;;) {
    let child = 2 * i + 1
    if (child >= length) break
    if (child + 1 < length && isBefore(heap[child + 1]!, heap[child]!)) child++
    if (!isBefore(heap[child]!, last)) break
    heap[i] = heap[child]!
    i = child
  }
  heap[i] = last
}

function isBefore(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}
