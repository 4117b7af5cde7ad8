import type { Argument } from '../../src/ledger/redis/protocol.ts'

interface Register {
  readonly id: string
  readonly madeAt: number
  /** By partition: until when it is used. */
  readonly used: Map<string, number>
  /** By partition: when that was reported. */
  readonly lost: Map<string, number>
}

/** What partition-register.lua does, in TypeScript; the test beside it shows that both answer the same. */
export class RegisterModel {
  readonly #registers = new Map<string, Register>()

  run([key]: readonly string[], args: readonly Argument[]): Argument[] {
    const now = Math.floor(Number(args[1]) / 1_000)
    const [usedMs, toldMs, count] = [Number(args[2]), Number(args[3]), Number(args[6])]
    const asked = String(args[5])
    const register = this.#registers.getOrInsertComputed(key!, () => {
      return { id: String(args[0]), madeAt: now, used: new Map<string, number>(), lost: new Map<string, number>() }
    })
    const { id, madeAt, used, lost } = register
    for (const [partition, until] of used) if (until < now) used.delete(partition)
    for (const [partition, at] of lost) if (at < now - toldMs) lost.delete(partition)
    for (const partition of args.slice(7, 7 + count)) used.set(String(partition), now + usedMs)
    for (const partition of args.slice(7 + count)) lost.set(String(partition), now)
    const is = lost.has(asked) ? 'lost' : used.has(asked) ? 'used' : 'unknown'
    const told = args[4] === '' ? [] : [...lost].filter(([, at]) => at >= Number(args[4]) && at <= now)
    told.sort(([a, atA], [b, atB]) => atB - atA || (a < b ? -1 : 1))
    return [id, now - madeAt, now, is, ...told.map(([partition]) => partition)]
  }

  lose(isLost: (key: string) => boolean): void {
    for (const key of this.#registers.keys()) if (isLost(key)) this.#registers.delete(key)
  }

  copy(): RegisterModel {
    const copy = new RegisterModel()
    for (const [key, { used, lost, ...rest }] of this.#registers) {
      copy.#registers.set(key, { ...rest, used: new Map(used), lost: new Map(lost) })
    }
    return copy
  }
}
