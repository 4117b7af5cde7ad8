import { randomBytes } from 'node:crypto'
import { TimeSlice } from '../observe/time-slice.ts'
import { OwnConnection, StoreError } from '../redis/own-connection.ts'
import { parsedJson } from '../schema/json.ts'
import type { StoreConfig } from '../schema/schema.ts'
import type { Clock } from '../time/clock.ts'
import { DAY_MS, type DayRow, foldsOf, KEPT_DAYS, MOST_ROWS, namesOf, NUMBERS, rowOf } from './day-row.ts'
import type { Batch, UsageDays } from './days.ts'

/** For how long Redis knows the latest batch of a process. The keeper drops a batch sooner, so none is added twice. */
const NUMBER_KEPT_MS = 7 * DAY_MS

/**
 * Adds a batch of rows to a day, unless it was added before: a sender that got no answer sends the batch again. The number of the
 * batch is written first. If Redis then refuses a write, some rows are lost, but nothing is counted twice.
 *
 * - KEYS[1]: the rows of the day.
 * - KEYS[2]: the number of the latest batch of this process.
 * - ARGV[1]: the number of this batch.
 * - ARGV[2]: how many rows have their own names.
 * - ARGV[3]: for how many milliseconds the rows are kept.
 * - ARGV[4]: for how many milliseconds the number is kept.
 * - ARGV[5] and so on, four for each row: its name, its name without the account, its name without account and client, its numbers.
 */
const ADD = `
  if tonumber(redis.call('GET', KEYS[2]) or '0') >= tonumber(ARGV[1]) then return 0 end
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[4])
  local most, size = tonumber(ARGV[2]), redis.call('HLEN', KEYS[1])
  for i = 5, #ARGV, 4 do
    local name = ARGV[i]
    local known = redis.call('HGET', KEYS[1], name)
    if not known and size >= most then
      name = ARGV[i + 1]
      known = redis.call('HGET', KEYS[1], name)
      if not known and size >= 2 * most then
        name = ARGV[i + 2]
        known = redis.call('HGET', KEYS[1], name)
      end
    end
    if not known then size = size + 1 end
    local sums, before = {}, string.gmatch(known or '', '%S+')
    for number in string.gmatch(ARGV[i + 3], '%S+') do
      sums[#sums + 1] = string.format('%.17g', tonumber(number) + tonumber(before() or '0'))
    end
    for number in before do sums[#sums + 1] = number end -- what only a newer release counts
    redis.call('HSET', KEYS[1], name, table.concat(sums, ' '))
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1`

/** Keeps the rows of each day in a Redis hash. All instances add to it, and it expires. */
export class RedisDays implements UsageDays {
  /** Few enough that a batch does not keep Redis busy for long. */
  readonly rowsABatch = 200
  readonly #prefix: string
  readonly #redis: OwnConnection
  /** Names this process. */
  readonly #id = randomBytes(6).toString('hex')

  constructor(store: StoreConfig, clock: Clock) {
    this.#prefix = store.prefix
    this.#redis = new OwnConnection(store, clock)
  }

  async add({ number, day, rows }: Batch): Promise<void> {
    const args = rows.flatMap((row) => [
      ...[row, ...foldsOf(row)].map((one) => JSON.stringify(namesOf(one))),
      NUMBERS.map((field) => row[field]).join(' '),
    ])
    const keptMs = (KEPT_DAYS + 1) * DAY_MS
    const keys = [this.#keyOf(day), this.#keyOf(this.#id)]
    const numbers = [number, MOST_ROWS, keptMs, NUMBER_KEPT_MS]
    await this.#redis.ask((redis) => redis.eval(ADD, keys.length, ...keys, ...numbers, ...args))
  }

  async read(day: string): Promise<DayRow[]> {
    const fields = await this.#redis.ask((redis) => redis.hgetall(this.#keyOf(day)))
    const slice = new TimeSlice()
    const rows: DayRow[] = []
    for (const [name, text] of Object.entries(fields)) {
      const names = parsedJson(name)
      const numbers = text.split(' ').map(Number)
      if (!Array.isArray(names) || !numbers.every(Number.isFinite))
        throw new StoreError(`has what is no row: remove the field ${name} of the hash ${this.#keyOf(day)} (HDEL)`)
      rows.push(rowOf(day, names as string[], numbers))
      await slice.endIfOver()
    }
    return rows
  }

  close(): void {
    this.#redis.close()
  }

  /** All keys are in the same slot of a cluster, because one script writes two of them. */
  #keyOf(name: string): string {
    return `${this.#prefix}:{usage}:${name}`
  }
}
