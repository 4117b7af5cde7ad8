import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { isMap, isScalar, type Node, parseDocument, stringify, visit, type YAMLSeq } from 'yaml'
import { createKey, hashKey, KEY_PREFIX, keyOf } from '../clients/keys.ts'
import { findConfig } from '../config/find.ts'
import { readYaml } from '../config/yaml.ts'
import { isObject } from '../schema/json.ts'
import { whyNoName } from '../schema/schema-parts.ts'
import { auditChange } from './audit-change.ts'
import { CommandError } from './command-error.ts'
import { printTable } from './table.ts'
import { writeConfig } from './write-config.ts'

/** Prints a new key, and what to write into the configuration for it. The key itself is stored nowhere. */
export function createKeyCommand(options: { client?: string }): void {
  const client = options.client ?? '<client>'
  const problem = options.client === undefined ? undefined : whyNoName(options.client)
  if (problem !== undefined) throw new CommandError(`--client: ${problem}`)
  const { key, keyHash } = createKey()
  process.stdout.write(
    [
      `Key, shown only now:  ${key}`,
      '',
      'In the configuration:',
      'clients:',
      // Quoted where it would be read as a number, as 007 would.
      `  ${stringify(client).trimEnd()}:`,
      `    keys: ["${keyHash}"]`,
      '',
    ].join('\n'),
  )
}

export async function listKeys(options: { config?: string }): Promise<void> {
  const found = await findConfig(options.config, { ignores: ([first]) => first !== 'clients' })
  const { clients } = found?.config ?? {}
  if (clients === undefined) {
    process.stderr.write('no clients are configured, so there are no keys: anyone on this machine may call\n')
    return
  }
  if (Object.keys(clients).length === 0)
    process.stderr.write('clients is empty, so there are no keys: only clients of the admin API may call\n')
  else if (Object.values(clients).every(({ keys }) => keys.length === 0))
    process.stderr.write('no client of the configuration has a key\n')
  const rows = Object.entries(clients).flatMap(([name, { keys }]) =>
    keys.map((key) => {
      const { hash, label = '', expires } = keyOf(key)
      return [name, hash, label, expires === undefined ? '' : new Date(expires).toISOString()]
    }),
  )
  printTable(['CLIENT', 'HASH', 'LABEL', 'EXPIRES'], rows)
}

/** Removes a key from the configuration file. Everything else in the file stays as it is. */
export async function revokeKey(given: string, options: { config?: string }): Promise<void> {
  const file = (await findConfig(options.config, { ignores: () => true }))?.source
  if (file === undefined || file === 'environment') {
    throw new CommandError('there is no configuration file to revoke a key in')
  }
  const wanted = hashIn(given)
  const text = readFileSync(file, 'utf8')
  const found = findKeys(text, wanted)
  if (found.length !== 1)
    throw new CommandError(`${found.length === 0 ? 'no' : 'more than one'} key begins with ${wanted}`)
  const { list, index } = found[0]!
  if (list.items.length === 1) {
    throw new CommandError(
      `this is the only key of its client, which must have one. To end it at once, write the hash of a new key in its place in ${file} (npx sluice keys create), or take the client out of the file`,
    )
  }
  const revoked = keyHashAt(list, index)
  const rest = withoutItem(text, list, index)
  if (!isWithoutKey(rest, text, revoked)) {
    throw new CommandError(
      `nothing was changed: as ${file} is written, ${revoked} can't be removed without changing something else. Remove it by hand in every place, and run \`npx sluice check\``,
    )
  }
  writeConfig(file, rest)
  // The key is revoked even if the store of the audit trail can't be found.
  const configuration = await findConfig(options.config, { ignores: ([first]) => first !== 'store' }).catch(
    () => undefined,
  )
  await auditChange(configuration?.config.store, {
    action: 'key.revoke',
    target: 'config',
    name: revoked,
    before: { hash: revoked },
    after: null,
  })
  process.stdout.write(
    `revoked in ${file}; a running gateway refuses it as soon as it has read the file again: at once, with server.watch\n`,
  )
}

/** The hash that is given, or the beginning of one, or the hash of a key that is given itself. No message shows what might be a key. */
function hashIn(given: string): string {
  if (given.startsWith(KEY_PREFIX)) return hashKey(given)
  const [, digits] = /^(?:sha256:)?([\da-f]{8,64})$/i.exec(given) ?? []
  if (digits === undefined)
    throw new CommandError(
      'give a hash, as npx sluice keys list shows it, at least its first 8 hex digits; or the whole key, which begins with slk_',
    )
  return `sha256:${digits.toLowerCase()}`
}

/** Whether a text says all that another one says, except for that key. */
function isWithoutKey(rest: string, text: string, hash: string): boolean {
  const { document, problems } = readYaml(rest)
  return problems.length === 0 && isDeepStrictEqual(document.toJS(), without(readYaml(text).document.toJS(), hash))
}

function without(value: unknown, hash: string): unknown {
  if (Array.isArray(value)) {
    const kept = value.filter((item) => item !== hash && !(isObject(item) && item['hash'] === hash))
    return kept.map((item) => without(item, hash))
  }
  if (!isObject(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, without(inner, hash)]))
}

function keyHashAt({ items }: YAMLSeq<Node>, index: number): string {
  const item = items[index]
  return String(isMap(item) ? item.get('hash') : isScalar(item) ? item.value : undefined)
}

interface Found {
  readonly list: YAMLSeq<Node>
  readonly index: number
}

function findKeys(text: string, beginning: string): Found[] {
  const found: Found[] = []
  visit(parseDocument(text, { keepSourceTokens: true }), {
    Seq(_, list) {
      for (const index of list.items.keys()) {
        if (keyHashAt(list as YAMLSeq<Node>, index).startsWith(beginning))
          found.push({ list: list as YAMLSeq<Node>, index })
      }
    },
  })
  return found
}

/** Removes an item from the text of a list: its lines, or in a list with brackets the item and one comma. */
function withoutItem(text: string, list: YAMLSeq<Node>, index: number): string {
  const { items, flow } = list
  const startOf = (i: number): number => items[i]!.range![0]
  const endOf = (i: number): number => items[i]!.range![1]
  if (flow !== true) {
    // A mapping of several lines ends after its last line break. Anything else ends before the break of its line.
    const lineEnd = text.indexOf('\n', endOf(index) - 1)
    const lineStart = text.lastIndexOf('\n', dashOf(list, index) ?? startOf(index)) + 1
    return text.slice(0, lineStart) + (lineEnd < 0 ? '' : text.slice(lineEnd + 1))
  }
  const isLast = index === items.length - 1
  return isLast
    ? text.slice(0, endOf(index - 1)) + text.slice(endOf(index))
    : text.slice(0, startOf(index)) + text.slice(startOf(index + 1))
}

/** Where the dash of an item is: it may stand lines above the item. */
function dashOf({ srcToken }: YAMLSeq<Node>, index: number): number | undefined {
  if (srcToken?.type !== 'block-seq') return undefined
  const dashes = srcToken.items.flatMap(({ start }) => start.filter(({ type }) => type === 'seq-item-ind'))
  return dashes[index]?.offset
}
