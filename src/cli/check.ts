import type { Config, StoreConfig } from '../schema/schema.ts'
import type { BudgetConfig } from '../schema/budget-schema.ts'
import { windowLabel } from '../schema/limits.ts'
import { calendarOf } from '../time/calendar.ts'
import { systemClock } from '../time/clock.ts'
import { findConfig } from '../config/find.ts'
import { placedWarnings } from '../config/placed-warnings.ts'
import { checkHome, checkStore } from './check-store.ts'
import { CommandError } from './command-error.ts'
import { printableLines } from './printable.ts'
import { countOf } from '../schema/units.ts'

/** Validates a configuration and says what is in it, or lists everything that is wrong with it. */
export async function check(
  file: string | undefined,
  options: { config?: string; secrets: boolean; store?: boolean },
): Promise<void> {
  if (file !== undefined && options.config !== undefined && file !== options.config)
    throw new CommandError('there are two files, by its name and by --config: check one after the other')
  const found = await findConfig(file ?? options.config, { ignores: () => !options.secrets })
  if (found === undefined)
    throw new CommandError(
      'there is no configuration: name a file, run `npx sluice init` to make one, or set HARNESS_ACCOUNT_ID and HARNESS_API_KEY',
    )
  const { config, source } = found
  const accounts = Object.values(config.upstreams).flatMap((upstream) => Object.keys(upstream.accounts))
  const clients = Object.keys(config.clients ?? {})
  const store = options.store === true ? await storeLines(config.store) : { lines: [], warnings: [] }
  const ofStore = store.warnings.map((warning) => `${source}: warning: ${warning}`)
  for (const warning of [...placedWarnings(found), ...ofStore]) process.stderr.write(`${printableLines(warning)}\n`)
  process.stdout.write(
    `${source}: ok, with ${countOf(Object.keys(config.upstreams).length, 'upstream')}, ${countOf(accounts.length, 'account')}, ${countOf(clients.length, 'client')}\n`,
  )
  for (const line of [...calendarLines(config), ...store.lines]) process.stdout.write(`${line}\n`)
}

async function storeLines(config: StoreConfig): Promise<{ lines: string[]; warnings: readonly string[] }> {
  const { regions, prefix } = config
  const { kind, holds, warnings } = await checkStore(config)
  const home = regions === undefined ? [] : [`home: ${await checkHome(regions, prefix)}`]
  return { lines: [...[kind, ...holds].map((line) => `store: ${line}`), ...home], warnings }
}

/** When the windows of a calendar end, so that whoever wrote a time zone or an anchor sees what it means. */
function calendarLines({ upstreams, clients = {}, teams, organisations }: Config): string[] {
  const limits = Object.entries(upstreams).flatMap(([upstream, { limits }]) =>
    Object.entries(limits).flatMap(([name, all]) => all.map((one) => ({ ...one, of: `${upstream} ${name}` }))),
  )
  const budgets = [clients, teams, organisations].flatMap((holders) =>
    Object.entries(holders).flatMap(([name, { budget = [] }]: [string, { budget?: BudgetConfig }]) =>
      budget.map((one) => ({ ...one, of: `the budget of ${name}` })),
    ),
  )
  return [...limits, ...budgets].flatMap((one) => {
    const { of, window, timezone, anchor } = one
    if (typeof window !== 'string') return []
    const ends = calendarOf({ unit: window, timezone, anchor }).endText(systemClock.wall())
    return `${of}: this ${windowLabel(one, window)} ends at ${ends}`
  })
}
