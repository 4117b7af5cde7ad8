import { existsSync } from 'node:fs'
import { createInterface, type Interface } from 'node:readline/promises'
import { stringify } from 'yaml'
import { createKey } from '../clients/keys.ts'
import { configOf, findConfig } from '../config/find.ts'
import { presets } from '../config/presets/index.ts'
import { ConfigError, didYouMean } from '../config/problem.ts'
import { whyNoName } from '../schema/schema-parts.ts'
import { check } from './check.ts'
import { CommandError } from './command-error.ts'
import { callVendors } from './harmless-call.ts'
import { shellWord } from './shell-word.ts'
import { writeConfig } from './write-config.ts'

interface Options {
  readonly preset?: string
  readonly account?: string
  readonly accountId?: string
  readonly url?: string
  readonly user?: string
  readonly secret?: string
  readonly client?: string
  readonly file: string
  readonly force?: boolean
  readonly call?: boolean
}

type Field = 'preset' | 'account' | 'accountId' | 'url' | 'user' | 'secret' | 'client'
type Answers = { -readonly [Name in Field]?: string }

/**
 * Writes a first configuration with a key for its first client, and checks it as `sluice check` does. The key is shown once. At
 * a terminal it asks for every option that is missing. Elsewhere it throws a `CommandError` that lists them. It does not
 * overwrite a file unless it is forced, and it writes only what the check takes.
 */
export async function init(options: Options): Promise<void> {
  const { file, force = false } = options
  if (existsSync(file) && !force) throw new CommandError(`${file} is there already: --force writes over it`)
  const terminal = process.stdin.isTTY
    ? createInterface({ input: process.stdin, output: process.stderr, terminal: false })
    : undefined
  try {
    const answers = await complete(options, terminal)
    const { key, keyHash } = createKey()
    const text = configText(answers, keyHash)
    // First, because a file that nothing takes would be in the way of a second try, and nobody would have seen its key.
    await checkText(file, text)
    writeConfig(file, text)
    await check(file, { secrets: false })
    process.stdout.write(`Key of ${answers.client}, shown only now:  ${key}\n`)
    if (!(await secretsResolve(file))) {
      if (options.call !== true) return
      process.stderr.write('No call was made.\n')
      process.exitCode = 1
      return
    }
    const wantsCall =
      options.call ?? (terminal !== undefined && (await isYes(terminal, 'Make one harmless call to the vendor?')))
    if (wantsCall) await call(file)
    process.stdout.write(`Next: npx sluice start${file === 'sluice.yaml' ? '' : ` --config ${shellWord(file)}`}\n`)
  } finally {
    terminal?.close()
  }
}

interface Question {
  readonly field: Field
  readonly ask: string
  /** What an empty answer at a terminal means. Default: nothing, and it is asked again. */
  readonly usual?: string
  /** When it has to be answered. Default: always. */
  readonly isNeeded?: (answers: Answers) => boolean
  readonly problem: (value: string) => string | undefined
}

/**
 * How keys of vendors, and our own, begin. Each is followed by what its vendor writes behind it, and by so much that ordinary names such
 * as ghe-production-us, sat.team and pat.smith@example.com are none.
 */
const KEY_BEGIN =
  /^(?:[ps]at\.[\w-]+\.[^@]+$|(?:slk|gh[oprsu]|github_pat|shpat|sk_live|sk_test)_.{12}|(?:glpat|xox[a-z])-.{12}|sk-.{32})/i
/** Nobody types that as a name: letters, and three digits or more that do not all stand at the end. */
const RANDOM = /(?=(?:[a-z]*\d){3})(?=[a-z]*\d+[a-z])[a-z\d]{20}/i
// Names and ids stand in the file, in logs and in metrics. The messages do not repeat what was given.
const NO_SECRET = 'looks like a key: that stays where it is, and is named by --secret'

const isText = (value: string): string | undefined => {
  if (KEY_BEGIN.test(value)) return NO_SECRET
  return /^[\w.@+-]{1,256}$/.test(value) ? undefined : 'must be letters, digits and any of . _ @ + -'
}
const isName = (value: string): string | undefined =>
  KEY_BEGIN.test(value) || RANDOM.test(value) ? NO_SECRET : whyNoName(value)
const presetOf = ({ preset = '' }: Answers) => presets[preset]

const QUESTIONS: readonly Question[] = [
  {
    field: 'preset',
    ask: `Vendor (${Object.keys(presets).join(', ')})`,
    problem: (value) =>
      Object.hasOwn(presets, value)
        ? undefined
        : `must be one of ${Object.keys(presets).join(', ')}${didYouMean(value, Object.keys(presets))}`,
  },
  { field: 'account', ask: 'A name of your choice for the account', usual: 'prod', problem: isName },
  {
    field: 'accountId',
    ask: 'The vendor’s id of the account',
    isNeeded: (answers) => presetOf(answers)?.needsAccountId === true,
    problem: isText,
  },
  {
    field: 'url',
    ask: 'Base URL of the API',
    isNeeded: (answers) => answers.preset !== undefined && presetOf(answers)?.config['url'] === undefined,
    problem: (value) =>
      /^https?:\/\/[^/?#@\s]+(\/[^?#\s]*)?$/.test(value) ? undefined : 'must be a URL without user, query or fragment',
  },
  {
    field: 'user',
    ask: 'The user of the credential',
    isNeeded: ({ preset = '' }) => WITH_USER.has(preset),
    problem: isText,
  },
  {
    field: 'secret',
    ask: 'Where the secret is (env:NAME, file:PATH or secret:NAME)',
    // The message does not repeat what was given: it may be the secret itself.
    problem: (value) =>
      /^(?:env:[A-Za-z_]\w*|file:[^{}$\s]+|secret:[A-Za-z0-9][A-Za-z0-9._/-]{0,127})$/.test(value)
        ? undefined
        : 'must be env:NAME, file:PATH or secret:NAME, and not the secret itself',
  },
  { field: 'client', ask: 'A name of your choice for the first client', usual: 'my-tool', problem: isName },
]

async function complete(options: Options, terminal: Interface | undefined): Promise<Answers> {
  const answers: Answers = {}
  const problems: string[] = []
  for (const { field, ask, usual, isNeeded = () => true, problem } of QUESTIONS) {
    const option = `--${field.replace('Id', '-id')}`
    let value = options[field]
    while (terminal !== undefined && value === undefined && isNeeded(answers)) {
      const answer = await answerTo(terminal, `${ask}${usual === undefined ? '' : ` [${usual}]`}: `)
      if (answer === undefined)
        throw new CommandError('\nThe input ended before all was answered. Nothing was written.')
      const typed = answer === '' && usual !== undefined ? usual : answer
      const wrong = problem(typed)
      if (wrong === undefined) value = typed
      else process.stderr.write(`It ${wrong}.\n`)
    }
    const wrong = value === undefined ? undefined : problem(value)
    if (wrong !== undefined) problems.push(`${option}: ${wrong}`)
    else if (value !== undefined) answers[field] = value
    else if (isNeeded(answers)) problems.push(`${option} is missing: ${ask[0]!.toLowerCase()}${ask.slice(1)}`)
  }
  if (problems.length > 0) throw new CommandError(`${problems.join('\n')}\nNothing was written.`)
  return answers
}

/** Undefined if the input ends instead (Ctrl-D). The promise of `question` would then never be settled. */
async function answerTo(terminal: Interface, question: string): Promise<string | undefined> {
  const ended = new AbortController()
  const end = (): void => ended.abort()
  terminal.once('close', end)
  try {
    return (await terminal.question(question, { signal: ended.signal })).trim()
  } catch (error) {
    if (!ended.signal.aborted && (error as NodeJS.ErrnoException).code !== 'ERR_USE_AFTER_CLOSE') throw error
    return undefined
  } finally {
    terminal.off('close', end)
  }
}

/** How each vendor expects its secret in the header, if not on its own. See docs/credentials.md. */
const PREFIXES: Readonly<Record<string, string>> = {
  github: 'Bearer ',
  slack: 'Bearer ',
  cloudflare: 'Bearer ',
  pagerduty: 'Token token=',
  gitlab: 'Bearer ',
  hubspot: 'Bearer ',
  openai: 'Bearer ',
}
/** Where a secret belongs to a user, and is sent with the name. */
const WITH_USER = new Set(['jira', 'confluence'])

function configText(
  { preset = '', account = '', accountId, url, user, secret = '', client = '' }: Answers,
  hash: string,
): string {
  const reference = `\${${secret}}`
  const credential = WITH_USER.has(preset)
    ? { type: 'basic', username: user, password: reference }
    : { value: `${PREFIXES[preset] ?? ''}${reference}` }
  const upstream = {
    preset,
    ...(url === undefined ? {} : { url }),
    accounts: { [account]: { ...(accountId === undefined ? {} : { id: accountId }), credential } },
  }
  const sealed = secret.startsWith('secret:')
  return [
    '# A gateway for one account. Every field: docs/configure.md, or `npx sluice schema`. To check it: `npx sluice check`.',
    '',
    '# The vendor. The preset has its URL, limits and routes. The secret stays where it is, and only its place is named here.',
    stringify({ upstreams: { [preset]: upstream } }),
    "# So that a tool's base URL is http://127.0.0.1:8080, without the upstream's name behind it.",
    stringify({ defaultUpstream: preset }),
    '# Who may call. Only the hash of a key is here: `npx sluice keys create` makes another.',
    stringify({ clients: { [client]: { keys: [hash] } } }),
    ...(sealed
      ? [
          `# The key of the secret store. \`npx sluice credentials set ${secret.slice('secret:'.length)}\` puts the secret there.`,
          stringify({ secrets: { key: '${env:SLUICE_SECRETS_KEY}' } }),
        ]
      : []),
    '# Where used quota is remembered, over restarts too. For several gateways: { kind: redis, url: … }.',
    stringify({ store: { kind: 'memory', dir: '.sluice' } }).trimEnd(),
    '',
  ].join('\n')
}

async function checkText(file: string, text: string): Promise<void> {
  try {
    await configOf(file, text, { ignores: () => true })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new CommandError(`${error.message}\nNothing was written.`)
  }
}

/** Returns whether the secret is where the configuration says. If not, this prints what is missing before a start. */
async function secretsResolve(file: string): Promise<boolean> {
  try {
    await findConfig(file)
    return true
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    process.stderr.write(`Before the gateway can start:\n${error.message}\n`)
    return false
  }
}

async function isYes(terminal: Interface, question: string): Promise<boolean> {
  return /^y(?:es)?$/i.test((await answerTo(terminal, `${question} [y/N] `)) ?? '')
}

async function call(file: string): Promise<void> {
  const { config } = (await findConfig(file))!
  for (const { level, what, finding, todo } of await callVendors(config)) {
    process.stdout.write(`${level}: ${what} ${finding}${todo === undefined ? '' : ` → ${todo}`}\n`)
    if (level === 'fail') process.exitCode = 1
  }
}
