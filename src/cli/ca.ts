import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { platform } from 'node:os'
import { resolve } from 'node:path'
import type { Path } from '../config/problem.ts'
import { findConfig } from '../config/find.ts'
import { Authority, AuthorityError, rotateAuthority } from '../forward-proxy/authority.ts'
import { interceptedHosts } from '../gateway/origins.ts'
import { CommandError } from './command-error.ts'
import { shellWord } from './shell-word.ts'

interface Options {
  readonly config?: string
}

/** Shows the CA of the forward proxy, and makes it if there is none yet. */
export async function showCa(options: Options & { pem?: boolean }): Promise<void> {
  const { folder, hosts } = await placeOf(options.config)
  const authority = await Authority.open(folder, hosts).catch(explain)
  if (options.pem === true) return void process.stdout.write(readFileSync(authority.file, 'utf8'))
  const { subject, fingerprint256, validToDate } = authority.root
  const rows = [
    ['file', resolve(authority.file)],
    ['name', subject.replace(/^CN=/, '')],
    ['SHA-256', fingerprint256],
    ['expires', validToDate.toISOString().slice(0, 10)],
    ['good for', goodFor(authority.hosts)],
  ]
  for (const [name = '', value = ''] of rows) process.stdout.write(`${name.padEnd(10)}${value}\n`)
  for (const problem of new Set(hosts.map((host) => authority.whyNot(host)))) {
    if (problem !== undefined) process.stdout.write(`warning   ${problem}\n`)
  }
}

/** Prints what makes this machine trust the CA, or runs it. */
export async function installCa(options: Options & { yes?: boolean }): Promise<void> {
  const { folder, hosts } = await placeOf(options.config)
  const { file } = await Authority.open(folder, hosts).catch(explain)
  const commands = commandsFor(resolve(file))
  for (const command of commands) {
    if (options.yes !== true) {
      process.stdout.write(`${command.map(shellWord).join(' ')}\n`)
      continue
    }
    const [program = '', ...args] = command
    const { status, error } = spawnSync(program, args, { stdio: 'inherit' })
    if (error !== undefined || status !== 0) {
      throw new CommandError(
        `${command.join(' ')} failed (${error?.message ?? `it ended with ${status}`}): it may need root`,
      )
    }
  }
  process.stderr.write(
    options.yes === true
      ? 'This machine trusts the CA. Node, Python’s requests and Java have trust stores of their own: npx sluice run sets them.\n'
      : 'Run these as root, or npx sluice ca install --yes. For single tools there is npx sluice run, which needs none of it.\n',
  )
}

/** Makes a new CA in the place of the one that there is. */
export async function rotateCa(options: Options): Promise<void> {
  const { folder, hosts } = await placeOf(options.config)
  const { file, root } = await rotateAuthority(folder, hosts).catch(explain)
  process.stdout.write(
    [
      `made a new CA: ${resolve(file)}, ${root.fingerprint256}, good for ${goodFor(hosts)}`,
      'Now restart the gateway, then every tool that reads that file. Where it was installed, run npx sluice ca install again;',
      'the old one is in no use any more, and can be removed there.',
      '',
    ].join('\n'),
  )
}

async function placeOf(file: string | undefined): Promise<{ folder: string; hosts: string[] }> {
  const found = await findConfig(file, { ignores: isUnimportant })
  const forwardProxy = found?.config.forwardProxy
  if (found === undefined || forwardProxy === undefined) {
    throw new CommandError('the configuration has no forwardProxy, so there is no CA: see docs/forward-proxy.md')
  }
  return { folder: forwardProxy.ca, hosts: interceptedHosts(found.config) }
}

function goodFor(hosts: readonly string[]): string {
  return hosts.length > 0 ? `${hosts.join(', ')}, and nothing else` : 'no host: no upstream is called by https'
}

/** Whether this part of the configuration says neither where the CA is nor for which hosts it is good. */
function isUnimportant([first, , field]: Path): boolean {
  return first !== 'forwardProxy' && !(first === 'upstreams' && (field === 'url' || field === 'hosts'))
}

function explain(error: unknown): never {
  throw error instanceof AuthorityError ? new CommandError(error.message) : error
}

function commandsFor(file: string): string[][] {
  const name = 'sluice-local-ca.crt'
  switch (platform()) {
    case 'darwin':
      return [
        ['security', 'add-trusted-cert', '-d', '-r', 'trustRoot', '-k', '/Library/Keychains/System.keychain', file],
      ]
    case 'win32':
      return [['certutil', '-addstore', '-f', 'ROOT', file]]
    default:
      return existsSync('/etc/pki/ca-trust/source/anchors')
        ? [['cp', file, `/etc/pki/ca-trust/source/anchors/${name}`], ['update-ca-trust']]
        : [['cp', file, `/usr/local/share/ca-certificates/${name}`], ['update-ca-certificates']]
  }
}
