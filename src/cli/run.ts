import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Value } from 'typebox/value'
import { request } from '../http/node-http.ts'
import { createKey } from '../clients/keys.ts'
import { findConfig } from '../config/find.ts'
import { Authority } from '../forward-proxy/authority.ts'
import { interceptedHosts } from '../gateway/origins.ts'
import { hostToReach } from '../net/address.ts'
import { createLog } from '../observe/log.ts'
import { runWithoutAdmin } from '../process/run.ts'
import { StartError } from '../process/start-error.ts'
import { ClientSchema } from '../schema/client-schema.ts'
import { defaultForwardProxy } from '../schema/forward-proxy-schema.ts'
import type { Config } from '../schema/schema.ts'
import { CommandError } from './command-error.ts'
import { explainFailure } from './start-failure.ts'
import { toolEnvironment } from './tool-environment.ts'

interface Options {
  readonly config?: string
  readonly client?: string
  readonly verbose?: boolean
}

/** What is used to reach the vendors: a gateway that runs, or one in this process. */
interface Way {
  readonly proxy: URL
  readonly ca: string
  stop(): Promise<void>
}

/** The codes of a shell for a command that is not there, or can't be run; with a signal, 128 and its number. */
const NOT_FOUND = 127
const NOT_RUNNABLE = 126
const SIGNALLED = 128
/** The signals of a terminal go to the command by themselves. */
const OF_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT']
const PASSED_ON: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', ...OF_TERMINAL]

/** An entry may have been there for other hosts inside a network, too, and a tool that no longer reaches them does not know why. */
const OTHERS =
  'sluice run: other hosts in these entries now go through the forward proxy, too. It reaches private addresses only as forwardProxy.networkAccess allows, and ports other than 443 only as forwardProxy.ports allows. To go around it, name each host in NO_PROXY.'

/**
 * Runs a command whose calls to the upstreams go through the gateway, without the command knowing: by the forward proxy of the
 * gateway that runs, else by one in this process. Ends as the command does.
 */
export async function run(command: readonly string[], options: Options): Promise<void> {
  const found = await findConfig(options.config)
  if (found === undefined) {
    throw new CommandError(
      'nothing is configured, so there is no upstream to go to: npx sluice init writes a first file',
    )
  }
  const { config } = found
  // First the signals, then the folder: a signal whose default action ends the process would leave the CA's private key there.
  const passSignalsTo = catchSignals()
  const folder = mkdtempSync(join(tmpdir(), 'sluice-run-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const way = (await throughRunning(config, options)) ?? (await throughOwn(config, folder, options))
  const hosts = interceptedHosts(config)
  const { env, leftOut } = toolEnvironment(process.env, { ...way, hosts, folder })
  if (leftOut.length > 0) {
    const entries = leftOut.join(', ')
    process.stderr.write(
      `sluice run: NO_PROXY has hosts of upstreams, so the command gets it without ${entries}\n${OTHERS}\n`,
    )
  }
  const code = await ended(command, env, passSignalsTo)
  // Calls that the command left behind are finished. A signal is for this process again, and ends that.
  passSignalsTo(undefined)
  await way.stop()
  process.exit(code)
}

/** Ends this process at a signal, as the signal itself would. While what it returns was given a command, that gets the signals instead. */
function catchSignals(): (command: ChildProcess | undefined) => void {
  let child: ChildProcess | undefined
  for (const signal of PASSED_ON) {
    process.on(signal, () => {
      if (child === undefined) process.exit(SIGNALLED + constants.signals[signal])
      if (!(OF_TERMINAL.includes(signal) && process.stdin.isTTY)) child.kill(signal)
    })
  }
  return (command) => void (child = command)
}

/** Starts the command; resolves with the code to end with. */
function ended(
  [program = '', ...args]: readonly string[],
  env: NodeJS.ProcessEnv,
  passSignalsTo: (command: ChildProcess) => void,
): Promise<number> {
  const failed = ({ code, message }: NodeJS.ErrnoException): number => {
    const why = code === 'ENOENT' ? 'there is no such command' : message
    process.stderr.write(`sluice run: ${program}: ${why}\n`)
    return code === 'ENOENT' ? NOT_FOUND : NOT_RUNNABLE
  }
  let child: ChildProcess
  try {
    child = spawn(program, args, { env, stdio: 'inherit' })
  } catch (error) {
    // Node tells some of its refusals as an event, and throws others, such as ENOTDIR and E2BIG.
    return Promise.resolve(failed(error as NodeJS.ErrnoException))
  }
  passSignalsTo(child)
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(failed(error)))
    child.once('close', (code, signal) => {
      resolve(code ?? SIGNALLED + (signal === null ? 0 : constants.signals[signal]))
    })
  })
}

/** The gateway that runs with this configuration, if it does, and has a forward proxy. */
async function throughRunning(config: Config, { client }: Options): Promise<Way | undefined> {
  const { forwardProxy } = config
  if (forwardProxy === undefined || forwardProxy.port === 0) return undefined
  const proxy = new URL(`http://${hostToReach(forwardProxy.host)}:${forwardProxy.port}`)
  if (!(await isOurs(proxy))) return undefined
  if (client !== undefined) {
    throw new CommandError(
      `--client has no effect on the gateway that runs at ${proxy.host}: set SLUICE_KEY to a key of ${client} instead`,
    )
  }
  const key = process.env['SLUICE_KEY']
  if (config.clients !== undefined && !key) {
    throw new CommandError(`the gateway that runs at ${proxy.host} wants the key of a client: set SLUICE_KEY to it`)
  }
  if (key) Object.assign(proxy, { username: RUN, password: encodeURIComponent(key) })
  const { file } = await Authority.read(forwardProxy.ca).catch((error: Error) => {
    throw new CommandError(error.message)
  })
  return { proxy, ca: readFileSync(file, 'utf8'), stop: () => Promise.resolve() }
}

/** Whether a gateway answers there: every refusal of its forward proxy says so. Not by `fetch`, which hides a 407. */
function isOurs(proxy: URL): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = request(proxy, { agent: false, timeout: 2_000 }, (response) => {
      response.resume()
      resolve(response.headers['x-sluice-error'] !== undefined)
    })
    asked.once('timeout', () => asked.destroy())
    asked.once('error', () => resolve(false))
    asked.end()
  })
}

/** A gateway in this process, on free ports of loopback, with a CA that is gone with it. */
async function throughOwn(config: Config, folder: string, { client, verbose = false }: Options): Promise<Way> {
  const { tls: _, ...server } = config.server
  const key = createKey()
  const own = {
    ...config,
    server: { ...server, host: '127.0.0.1', port: 0, workers: 1, proxyProtocol: false },
    forwardProxy: {
      ...(config.forwardProxy ?? defaultForwardProxy()),
      host: '127.0.0.1',
      port: 0,
      ca: join(folder, 'ca'),
    },
    ...(config.clients === undefined && client === undefined
      ? {}
      : { clients: withKey(config.clients ?? {}, key.keyHash, client) }),
  }
  const log = createLog(
    { ...config.log, level: verbose ? 'info' : 'warn', format: 'pretty' },
    { stream: process.stderr },
  )
  const gateway = await runWithoutAdmin(own, { log }).catch((error: unknown): never => {
    if (error instanceof StartError) {
      const advice = 'a gateway that runs is used instead of another one if it has a forwardProxy'
      throw new CommandError(`${error.message}\n${advice}`)
    }
    return explainFailure(error, 'forwardProxy.port')
  })
  const proxy = new URL(gateway.forwardProxyUrl!)
  if (own.clients !== undefined) Object.assign(proxy, { username: client ?? RUN, password: key.key })
  return {
    proxy,
    ca: readFileSync(join(own.forwardProxy.ca, 'ca.pem'), 'utf8'),
    async stop() {
      await gateway.stop()
      await log.close(1_000)
    },
  }
}

/** As which client a command calls, unless an option names another. If the configuration has no such client, it may do everything. */
const RUN = 'run'

function withKey(clients: NonNullable<Config['clients']>, keyHash: string, name = RUN) {
  const known = Object.hasOwn(clients, name) ? clients[name] : undefined
  if (name !== RUN && known === undefined) {
    const names = Object.keys(clients).join(', ') || 'none'
    throw new CommandError(`the configuration has no client "${name}"; it has ${names}`)
  }
  const client = known ?? Value.Decode(ClientSchema, Value.Default(ClientSchema, {}))
  return { ...clients, [name]: { ...client, keys: [...client.keys, keyHash] } }
}
