/*
 * src/cli: the commands, one file each.
 * It may import everything, and nothing imports it.
 * A change here must be in docs/run.md, and prove exit code and output (test/cli).
 */

import { setFlagsFromString } from 'node:v8'
import { Command, InvalidArgumentError, Option } from 'commander'
import { manifest } from '../manifest.ts'
import { CommandError } from './command-error.ts'
import { refuseLost } from './given.ts'
import { printableLines } from './printable.ts'
import { endAtSignal } from './stop-signal.ts'

const CONFIG: [string, string] = [
  '-c, --config <file>',
  'configuration; else SLUICE_CONFIG, else ./sluice.yaml, else the environment',
]
const URL_OPTION: [string, string] = [
  '--url <url>',
  'admin port of the gateway, such as http://127.0.0.1:9090, instead of the configured one',
]
const TOKEN_OPTION: [string, string] = [
  '--token <token>',
  'its admin.token, which everybody on this machine can see; else the configured one (not with --url), else SLUICE_ADMIN_TOKEN',
]

/** The commands that run until a signal ends them. */
const SERVERS = new Set(['start', 'demo', 'sandbox'])

/** Reads the command line and runs the command that it names. An expected failure ends with its message and code 1. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    await buildProgram().parseAsync(withCommand(argv))
  } catch (error) {
    const { ConfigError } = await import('../config/problem.ts')
    if (!(error instanceof ConfigError || error instanceof CommandError)) throw error
    process.stderr.write(`${printableLines(error.message)}\n`)
    // Ends the process at once, because a part of a start that failed may still be running.
    process.exit(1)
  }
}

/**
 * `sluice --port 8081` means `sluice start`. If start were the default command of the parser, a misspelt command would become
 * its argument.
 */
function withCommand([node = '', file = '', ...args]: readonly string[]): string[] {
  const isAboutProgram = ['-h', '--help', '-V', '--version'].includes(args[0] ?? '')
  const hasCommand = args[0]?.startsWith('-') === false
  return hasCommand || isAboutProgram ? [node, file, ...args] : [node, file, 'start', ...args]
}

/**
 * V8 multiplies its young generation by this factor when live objects fill it (default 2). With 2, a start would grow it, and V8 keeps
 * that while calls come: see `npm run bench:start`. With 1, a start does with what there is.
 */
function growYoungGeneration(factor: 1 | 2): void {
  setFlagsFromString(`--semi-space-growth-factor=${factor}`)
}

/**
 * A reader such as `head` may close the pipe before everything was printed. That is no error, and ends only what does nothing but
 * print. A full disk is an error. The log of a gateway does not come here: it copes with both.
 */
function outputFailed({ code }: NodeJS.ErrnoException, isServer: boolean): void {
  if (code === 'EPIPE' && isServer) return
  if (code === 'EPIPE') process.exit(0)
  process.stderr.write(`the output can't be written: ${code}\n`)
  process.exit(1)
}

// Longer than others, because each command is a statement of its own.
function buildProgram(): Command {
  const program = new Command('sluice')
    .description('An egress gateway for rate-limited APIs. Without a command it starts.')
    .version(manifest.version)
    .showHelpAfterError('Try --help.')
    .enablePositionalOptions()
    // Commander lists all arguments if there are too many, and one may be a secret.
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^(error: too many arguments[^:]*):[^]*/, '$1.\n')),
    })
    .hook('preAction', (_, command) => {
      if (command.name() === 'start') growYoungGeneration(1)
      const isServer = SERVERS.has(command.name())
      process.stdout.on('error', (error) => outputFailed(error, isServer))
      if (isServer) endAtSignal()
    })
    .hook('postAction', () => growYoungGeneration(2))
  command(program, 'start', 'run the gateway; with no configuration at all, in front of a sandbox')
    .option(...CONFIG)
    .option('-p, --port <port>', 'port for clients, instead of the configured one', toPort)
    .option('--admin-port <port>', 'admin port, instead of the configured one', toPort)
    .action(lazy(async () => (await import('./start.ts')).start))
  command(program, 'demo', 'run the gateway in front of a sandbox, whatever is configured')
    .option('-p, --port <port>', 'port for clients', toPort)
    .option('--admin-port <port>', 'admin port', toPort)
    .action(lazy(async () => (await import('./start.ts')).startDemo))
  command(program, 'check', 'validate a configuration')
    .argument('[file]', 'the same as --config')
    .option(...CONFIG)
    .option('--store', 'ask the store, too: what it has, and whether that survives a restart')
    .option('--no-secrets', 'leave out references that do not resolve here, and what they stand for')
    .action(lazy(async () => (await import('./check.ts')).check))
  command(
    program,
    'init',
    'write a first configuration with a key for a client; asks at a terminal for what no option says',
  )
    .option('--preset <name>', 'the vendor, such as harness or github')
    .option('--account <name>', 'a name of your choice for the account')
    .option('--account-id <id>', 'the vendor’s id of the account, where its preset needs one')
    .option('--url <url>', 'base URL of the API, where the preset has none')
    .option('--user <name>', 'the user of the credential, where the vendor wants one')
    .option('--secret <place>', 'where the secret is: env:NAME, file:PATH or secret:NAME; never the secret itself')
    .option('--client <name>', 'the first client')
    .option('--file <file>', 'where to write', 'sluice.yaml')
    .option('--force', 'write over a file that is there')
    .option('--call', 'make one harmless call to the vendor afterwards')
    .action(lazy(async () => (await import('./init.ts')).init))
  command(
    program,
    'doctor',
    'examine a configured or running gateway, one line each with what to do; ends with 1 if anything fails',
  )
    .option(...CONFIG)
    .option('--json', 'one JSON array instead of lines')
    .option('--no-calls', 'make no call to a vendor')
    .action(lazy(async () => (await import('./doctor.ts')).doctor))
  command(program, 'explain', 'say what the gateway would do with a call')
    .argument('[method]')
    .argument('[url]', 'path below the gateway, gateway URL, or the vendor’s own URL')
    .option(...CONFIG)
    .option('--json', 'one JSON object instead of text')
    .option('--client <name>', 'as a call of this client of the configuration, with what it may do')
    .option('--batch', 'read "METHOD URL" lines from stdin and answer each with one JSON object')
    .action(lazy(async () => (await import('./explain.ts')).explain))
  command(
    program,
    'run',
    'run a command whose calls to the upstreams go through the gateway: npx sluice run -- python3 tool.py',
  )
    .argument('<command...>', 'behind --, with its arguments')
    .option(...CONFIG)
    .option(
      '--client <name>',
      'as this client of the configuration; else as its client `run`, or one that may do everything',
    )
    .option('-v, --verbose', 'show a line for each call')
    .passThroughOptions()
    .action(lazy(async () => (await import('./run.ts')).run))
  addCaCommands(program)
  addKeyCommands(program)
  addCredentialCommands(program)
  command(
    program,
    'quota',
    'print how much of each quota is used, when it ends and how fast it is spent, the fullest first',
  )
    .option(...CONFIG)
    .option(...URL_OPTION)
    .option(...TOKEN_OPTION)
    .option('--json', 'as JSON, as the admin port answers')
    .option('--once', 'no effect: the table is always printed once; use `npx sluice top` for a live view')
    .addOption(
      new Option('--by <what>', 'who uses each limit, what each is due, and what is left of budgets').choices([
        'client',
      ]),
    )
    .action(lazy(async () => (await import('./quota.ts')).quota))
  command(
    program,
    'usage',
    'print what each client used by the day, of each account and class: the export for charge-back',
  )
    .option('--since <time>', 'from that day on (UTC), such as 30d or 2027-01-31; without it all that is kept, 90 days')
    .option('--until <time>', 'to that day')
    .option('--client <name>', 'of this client')
    .option('--account <name>', 'of this account, such as prod or harness/prod')
    .option('--class <name>', 'of this class')
    .option('--team <name>', 'of the clients of this team')
    .option('--organisation <name>', 'of those of this organisation')
    .addOption(new Option('--format <format>', 'how to print it').choices(['table', 'csv', 'json']).default('table'))
    .option(...CONFIG)
    .option(...URL_OPTION)
    .option(...TOKEN_OPTION)
    .action(lazy(async () => (await import('./usage.ts')).usage))
  command(program, 'top', 'show limits, queues, breakers and clients of a running gateway, live at a terminal until q')
    .option(...CONFIG)
    .option(...URL_OPTION)
    .option(...TOKEN_OPTION)
    .option('--once', 'print it once')
    .action(lazy(async () => (await import('./top.ts')).top))
  command(program, 'request', 'tell the story of a request by its correlation id; without one, list the latest')
    .argument('[id]', 'its X-Correlation-Id')
    .option('--client <name>', 'list those of this client')
    .option('--account <name>', 'of this account, such as prod or harness/prod')
    .option('--class <name>', 'of this class')
    .option('--status <status>', 'with this status, such as 429, 5xx or none')
    .option('--since <time>', 'that ended since then, such as 15m or 2027-01-31T18:00Z')
    .option('--limit <number>', 'how many at most, 20 unless given')
    .option(...CONFIG)
    .option(...URL_OPTION)
    .option(...TOKEN_OPTION)
    .option('--json', 'as JSON, as the admin port answers')
    .action(lazy(async () => (await import('./request.ts')).request))
  addPresetCommands(program)
  command(program, 'schema', 'print the JSON Schema of the configuration, for editors').action(
    lazy(async () => (await import('./schema.ts')).schema),
  )
  command(program, 'sandbox', 'run the stand-in for the Harness API by itself')
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port of the API', toPort, 8090)
    .option('--control-port <port>', 'port of its controls', toPort, 8091)
    .action(lazy(async () => (await import('./sandbox.ts')).sandbox))
  refuseLost(program)
  return program
}

function addPresetCommands(program: Command): void {
  const preset = command(program, 'preset', 'what is built in of vendors')
  command(preset, 'list', 'the presets, with base URL and classes').action(
    lazy(async () => (await import('./preset.ts')).listPresets),
  )
  command(preset, 'show', 'print what a preset stands for, as a configuration')
    .argument('<name>')
    .option('--routes', 'with the routes that it lists')
    .action(lazy(async () => (await import('./preset.ts')).showPreset))
  command(program, 'routes', 'propose routes for the operations of an OpenAPI document, each with the reason')
    .argument('<file>', 'the document, in YAML or JSON; - for stdin')
    .option('--preset <name>', 'with the classes of this preset')
    .action(lazy(async () => (await import('./routes.ts')).routes))
}

function addCaCommands(program: Command): void {
  const ca = command(program, 'ca', 'the local CA with which the forward proxy ends TLS')
  command(ca, 'show', 'its file, fingerprint and hosts; made now if there is none')
    .option('--pem', 'its certificate and nothing else')
    .option(...CONFIG)
    .action(lazy(async () => (await import('./ca.ts')).showCa))
  command(ca, 'install', 'print what makes this machine trust it')
    .option('--yes', 'run that')
    .option(...CONFIG)
    .action(lazy(async () => (await import('./ca.ts')).installCa))
  command(ca, 'rotate', 'make a new one in its place')
    .option(...CONFIG)
    .action(lazy(async () => (await import('./ca.ts')).rotateCa))
}

function addKeyCommands(program: Command): void {
  const keys = command(program, 'keys', 'keys of clients')
  command(keys, 'create', 'make a new key and show it, once, with the line for the configuration')
    .option('--client <name>', 'the client it is for')
    .action(lazy(async () => (await import('./keys.ts')).createKeyCommand))
  command(keys, 'list', 'the clients and the hashes of their keys')
    .option(...CONFIG)
    .action(lazy(async () => (await import('./keys.ts')).listKeys))
  command(keys, 'revoke', 'take a key out of the configuration file')
    .argument('<hash>', 'the hash, or enough of its beginning, or the key itself')
    .option(...CONFIG)
    // A part of a key may begin like an option, and commander would show it.
    .allowUnknownOption()
    .action(lazy(async () => (await import('./keys.ts')).revokeKey))
}

function addCredentialCommands(program: Command): void {
  const credentials = command(program, 'credentials', 'secrets in the store, for ${secret:NAME}')
  command(credentials, 'set', 'store a secret, read from a prompt or from stdin')
    .argument('<name>')
    .allowExcessArguments()
    .allowUnknownOption()
    .option(
      '--expires <date>',
      'when the vendor stops taking it, such as 2027-01-31 (the end of that day in UTC) or 2027-01-31T18:00Z',
    )
    .option(...CONFIG)
    .action(lazy(async () => (await import('./credentials.ts')).setCredential))
  command(credentials, 'rotate', 'put a new value beside the one in force, read from a prompt or from stdin')
    .argument('[name]')
    .allowExcessArguments()
    .allowUnknownOption()
    .option(
      '--expires <date>',
      'when the vendor stops taking it, such as 2027-01-31 (the end of that day in UTC) or 2027-01-31T18:00Z',
    )
    .option('--finish', 'let the new value take the place of the old one')
    .option('--force', 'with --finish: also one that an upstream has refused')
    .option('--cancel', 'forget the new value')
    .option('--key', 'seal every secret with the first master key, after secrets.key was changed')
    .option(...CONFIG)
    .action(lazy(async () => (await import('./credentials.ts')).rotateCredential))
  command(credentials, 'list', 'the names of the secrets, without values')
    .option(...CONFIG)
    .action(lazy(async () => (await import('./credentials.ts')).listCredentials))
  command(credentials, 'remove', 'take a secret out of the store')
    .argument('<name>')
    .option(...CONFIG)
    .action(lazy(async () => (await import('./credentials.ts')).removeCredential))
}

function command(parent: Command, name: string, description: string): Command {
  return parent.command(name).description(description)
}

/** Loads the code of a command when it runs. `--help` and `--version` need none of it and should not wait for it. */
function lazy<Args extends unknown[]>(load: () => Promise<(...args: Args) => void | Promise<void>>) {
  return async (...args: Args): Promise<void> => (await load())(...args)
}

function toPort(text: string): number {
  const port = Number(text)
  if (!/^\d+$/.test(text) || port > 65_535) throw new InvalidArgumentError('It must be a whole number from 0 to 65535.')
  return port
}
