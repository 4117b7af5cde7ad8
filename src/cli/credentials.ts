import type { Command } from 'commander'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { Value } from 'typebox/value'
import type { Change } from '../audit/audit.ts'
import { systemClock } from '../time/clock.ts'
import { findConfig } from '../config/find.ts'
import type { Path } from '../config/problem.ts'
import { isBlank } from '../secrets/references.ts'
import { moment } from '../schema/schema-parts.ts'
import { fileOfStore, openStore } from '../secrets/open.ts'
import { NoSuchSecretError, RefusedSecretError, type SecretStore } from '../secrets/secret-store.ts'
import { auditChange } from './audit-change.ts'
import { CommandError } from './command-error.ts'
import { printTable } from './table.ts'

interface Options {
  readonly config?: string
}

interface ValueOptions extends Options {
  readonly expires?: string
}

interface RotateOptions extends ValueOptions {
  readonly finish?: boolean
  readonly force?: boolean
  readonly cancel?: boolean
  readonly key?: boolean
}

/** Stores a secret. Its value comes from a prompt or stdin, because everybody on the machine can see arguments. */
export function setCredential(name: string, options: ValueOptions, command: Command): Promise<void> {
  checkArguments(name, command)
  const expiresAt = toTime(options.expires)
  return withStore(options, async (store, note, place) => {
    await store.set(name, await readValue(name), expiresAt)
    note('set', name, expiresAt)
    say(`${name} is set in ${place}; gateways that run with this store use it at once, as \${secret:${name}}`)
  })
}

/**
 * Rotates a secret: adds a new value beside the one in force, then keeps the new one or the old one. With `key` it seals
 * all secrets with another master key instead.
 */
export function rotateCredential(name: string | undefined, options: RotateOptions, command: Command): Promise<void> {
  if (name !== undefined) checkArguments(name, command)
  checkOptions(name, options)
  const expiresAt = toTime(options.expires)
  return withStore(options, async (store, note, place) => {
    if (options.key === true) {
      const count = await store.rekey()
      note('rekey', 'all secrets')
      say(`${count} secrets were sealed anew in ${place}, with the first master key`)
      return
    }
    if (name === undefined) throw new CommandError('name the secret to rotate, or the master key with --key')
    if (options.finish === true) {
      await store.finish(name, { isForced: options.force === true })
      note('finish', name)
      say(`${name}: the new value is in force, the old one is forgotten`)
    } else if (options.cancel === true) {
      await store.cancel(name)
      note('cancel', name)
      say(`${name}: the old value stays in force, the new one is forgotten`)
    } else {
      await store.rotate(name, await readValue(name), expiresAt)
      note('rotate', name, expiresAt)
      say(
        `${name} has a new value beside the old one in ${place}, which takes its share of the calls; end that with --finish`,
      )
    }
  })
}

export function listCredentials(options: Options): Promise<void> {
  return withStore(options, async (store, _, place) => {
    const listed = await store.list()
    if (listed.length === 0) process.stderr.write(`the store is empty: ${place}\n`)
    const rows = listed.map(({ name, version, key, createdAt, expiresAt, isRefused }) => {
      const expires = expiresAt === undefined ? 'never' : new Date(expiresAt).toISOString()
      return [name, version, key, toDate(createdAt), expires, isRefused ? 'refused' : '']
    })
    printTable(['NAME', 'VERSION', 'KEY', 'SET', 'EXPIRES', 'VENDOR'], rows)
  })
}

export function removeCredential(name: string, options: Options): Promise<void> {
  return withStore(options, async (store, note, place) => {
    await store.remove(name)
    note('remove', name)
    say(`${name} is removed from ${place}; gateways that run keep the value until they stop`)
  })
}

/** Gets every change for the audit trail, but never a value. */
type Note = (action: string, name: string, expiresAt?: number) => void

async function withStore(
  options: Options,
  run: (store: SecretStore, note: Note, place: string) => Promise<void>,
): Promise<void> {
  const found = await findConfig(options.config, { ignores: isUnimportant })
  const store = found && openStore(found.config, systemClock)
  if (store === undefined) {
    throw new CommandError(
      'there is no master key: set secrets.key in the configuration, such as "${env:SLUICE_SECRETS_KEY}"',
    )
  }
  // The whole path: it starts at the folder that the command runs in, which may be another one than the gateway's.
  const file = fileOfStore(found!.config)
  const place = file === undefined ? 'Redis' : resolve(file)
  const changes: Change[] = []
  const note: Note = (action, name, expiresAt) => {
    const after = expiresAt === undefined ? null : { expires_at: new Date(expiresAt).toISOString() }
    changes.push({ action: `secret.${action}`, target: 'secret', name, before: null, after })
  }
  try {
    await run(store, note, place)
  } catch (error) {
    if (error instanceof NoSuchSecretError) throw new CommandError(`${error.message}: ${place}`)
    if (error instanceof RefusedSecretError) {
      const at = new Date(error.refusedAt).toISOString()
      throw new CommandError(
        `nothing was changed: an upstream refused the new value at ${at}. Take it back with --cancel, or put it in force all the same with --finish --force`,
      )
    }
    if (!(error instanceof Error) || error instanceof CommandError) throw error
    throw new CommandError(`the secret store can't be used: ${error.message}`)
  } finally {
    await store.close()
    for (const change of changes) await auditChange(found!.config.store, change)
  }
}

/** Whether the secret store can be found without this part of the configuration. */
function isUnimportant([first]: Path): boolean {
  return first !== 'secrets' && first !== 'store'
}

async function readValue(name: string): Promise<string> {
  const value = process.stdin.isTTY ? await prompt(`Value of ${name}, not shown: `) : await text(process.stdin)
  const stripped = value.replace(/\r?\n$/, '')
  if (isBlank(stripped)) throw new CommandError('the value is empty, so nothing was changed')
  return stripped
}

/** Asks for a value without showing it: in readline's raw mode only readline writes to the terminal, and here it writes nowhere. */
async function prompt(question: string): Promise<string> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  const terminal = createInterface({ input: process.stdin, output: nowhere, terminal: true })
  terminal.on('SIGINT', () => process.exit(130))
  process.stderr.write(question)
  try {
    return await terminal.question('')
  } catch {
    // Ctrl-D, which is no fault of the store.
    throw new CommandError('no value was given, so nothing was changed')
  } finally {
    terminal.close()
    process.stderr.write('\n')
  }
}

/** Refuses options that contradict each other: to follow one of them in silence may put the wrong value in force. */
function checkOptions(name: string | undefined, { key, finish, force, cancel, expires }: RotateOptions): void {
  const others = [name, finish, force, cancel, expires].some((one) => one !== undefined)
  if (key === true && others)
    throw new CommandError('--key seals all secrets anew: give it no name and no other option, or leave it out')
  if (force === true && finish !== true) throw new CommandError('--force belongs to --finish')
  if (finish === true && cancel === true)
    throw new CommandError('--finish keeps the new value, and --cancel the old one: give one of them')
  if (expires !== undefined && (finish === true || cancel === true))
    throw new CommandError('--expires belongs to a new value, and --finish and --cancel take none: leave it out')
}

/** Refuses surplus arguments without repeating them: one of them may be the secret, put in the wrong place. */
function checkArguments(name: string, command: Command): void {
  if (command.args.length > 1) {
    throw new CommandError('the value is never an argument, which others could see: give it at the prompt, or to stdin')
  }
  if (/^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/.test(name)) return
  throw new CommandError('a name has letters, digits, ".", "_", "-" and "/", and begins with a letter or digit')
}

function toTime(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const schema = moment('')
  if (!Value.Check(schema, text))
    throw new CommandError(
      '--expires must be a day such as 2027-01-31, or a time such as 2027-01-31T18:00Z, that exists',
    )
  const time = Value.Decode(schema, text)
  if (time <= systemClock.wall()) throw new CommandError('--expires is in the past: give the end of this value')
  return time
}

function toDate(time: number): string {
  return new Date(time).toISOString().slice(0, 10)
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
