import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'

/**
 * `npm run bench:all`: runs every command that measures, one after the other, and prints what each says, and then each figure beside
 * its bar once more. A bar stands in the command that measures it (see `bar.ts`). `-- --quick` makes each short, to see that all of
 * them run: its figures say nothing. `--only NAME,NAME` runs these. With `--strict` a missed bar ends with 1; a command that fails
 * ends with 1 always.
 */
interface Command {
  readonly script: string
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** In place of these with `--quick`. */
  readonly quick: { readonly args?: readonly string[]; readonly env?: Readonly<Record<string, string>> }
}

const shortRounds = { BENCH_ROUNDS: '1', BENCH_ROUND_MS: '300' }
export const COMMANDS: readonly Command[] = [
  { script: 'bench', quick: { env: shortRounds } },
  { script: 'bench:observe', quick: { env: shortRounds } },
  { script: 'profile', quick: { args: ['--calls', '1000'] } },
  { script: 'bench:latency', quick: { args: ['--rounds', '1', '--ms', '1000'] } },
  { script: 'bench:bodies', quick: { args: ['--gigabytes', '0.1', '--rounds', '1'] } },
  { script: 'bench:connections', quick: { args: ['--idle', '100', '--streams', '50'] } },
  { script: 'bench:workers', quick: { args: ['--rounds', '1', '--seconds', '2', '--warm', '1'] } },
  { script: 'simulate:machines', quick: {} },
  { script: 'simulate:regions', quick: { args: ['--cases', '5'] } },
  { script: 'bench:cluster', quick: { args: ['--accounts', '2000'] } },
  { script: 'bench:growth', quick: { args: ['--rounds', '1', '--calls', '300', '--only', 'routes'] } },
  { script: 'bench:start', quick: { args: ['--rounds', '1', '--calls', '2000'] } },
  { script: 'bench:scrape', quick: { args: ['--clients', '20', '--accounts', '5', '--seconds', '2'] } },
  { script: 'bench:scrape', args: ['--accounts', '10000'], quick: { args: ['--accounts', '100', '--seconds', '2'] } },
  { script: 'bench:idle', quick: { args: ['--seconds', '2'] } },
  { script: 'bench:first-call', quick: { args: ['--starts', '1'] } },
  {
    script: 'bench:ledger',
    env: { BENCH_BUDGET_MS: '600000' },
    quick: { env: { ...shortRounds, BENCH_BUDGET_MS: '5000' } },
  },
  { script: 'bench:queue', quick: { env: { BENCH_ROUND_MS: '300' } } },
  { script: 'simulate:priced', quick: { args: ['--seeds', '1', '--minutes', '2'] } },
]
/** After this long a command hangs. */
const MOST_MS = 30 * 60_000

interface Outcome {
  readonly command: string
  /** The lines that `bar` printed. */
  readonly bars: readonly string[]
  /** Why it counts as failed. */
  readonly failed?: string
  readonly seconds: number
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      strict: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
    },
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  const outcomes: Outcome[] = []
  for (const command of chosen(values.only)) outcomes.push(await run(command, values.quick))
  summarize(outcomes)
  const hasMissed = outcomes.some(({ bars }) => bars.some((line) => line.startsWith('missed')))
  if (outcomes.some(({ failed }) => failed !== undefined) || (values.strict && hasMissed)) process.exitCode = 1
}

/** A name that is not in the list is tried, and so it is seen to fail. */
function chosen(only: string): readonly Command[] {
  if (only === '') return COMMANDS
  return only.split(',').flatMap((name) => {
    const found = COMMANDS.filter(({ script }) => script === name)
    return found.length > 0 ? found : [{ script: name, quick: {} }]
  })
}

async function run({ script, args = [], env = {}, quick }: Command, isQuick: boolean): Promise<Outcome> {
  const own = isQuick ? (quick.args ?? args) : args
  const command = [script, ...own].join(' ')
  console.log(`\n== ${command}`)
  const begun = performance.now()
  const child = spawn('npm', ['run', '--silent', script, '--', ...own], {
    env: { ...process.env, ...(isQuick ? (quick.env ?? env) : env) },
    stdio: ['ignore', 'pipe', 'inherit'],
    // A group of its own, so that what hangs ends with all that it started.
    detached: true,
  })
  const end = (): void => void process.kill(-child.pid!, 'SIGKILL')
  const timer = setTimeout(end, MOST_MS)
  process.once('exit', end)
  const ended = once(child, 'close') as Promise<[number | null]>
  const bars: string[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line)
    if (/^(met|missed) /.test(line)) bars.push(line)
  }
  const [code] = await ended
  clearTimeout(timer)
  process.off('exit', end)
  const seconds = Math.round((performance.now() - begun) / 1_000)
  const hasMissed = bars.some((line) => line.startsWith('missed'))
  // Who missed a bar ends with 2.
  if (code === 0 || (code === 2 && hasMissed)) return { command, bars, seconds }
  return { command, bars, seconds, failed: code === null ? 'was ended by a signal' : `ended with ${code}` }
}

function summarize(outcomes: readonly Outcome[]): void {
  const counted = { met: 0, missed: 0, failed: 0 }
  console.log('\n== all figures')
  for (const { command, bars, failed, seconds } of outcomes) {
    console.log(`${command} (${seconds} s)`)
    for (const line of bars) {
      counted[line.startsWith('met') ? 'met' : 'missed']++
      console.log(`  ${line}`)
    }
    if (failed !== undefined) {
      counted.failed++
      console.log(`  failed  it ${failed}`)
    } else if (bars.length === 0) console.log('  no bar')
  }
  console.log(`${counted.met} met, ${counted.missed} missed, ${counted.failed} commands failed`)
}
