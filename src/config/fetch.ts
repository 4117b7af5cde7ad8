import { dirname, resolve } from 'node:path'
import { visit } from 'yaml'
import { systemClock } from '../time/clock.ts'
import { openSources } from '../secrets/open.ts'
import type { Answer } from '../secrets/source.ts'
import { type LoadOptions, parseConfig } from './load.ts'
import { ConfigError } from './problem.ts'
import { isFetched, keyOf, type Reference, referencesIn } from '../secrets/references.ts'
import type { Config } from '../schema/schema.ts'
import { pathOf, type YamlText } from './yaml.ts'

/**
 * Fetches the values of references that take time: secrets of the store and of Vault, whose places the same file names.
 * Returns them by the key of the reference, for `parseConfigOf`, which reports problems with line and column.
 */
export async function fetchReferences(
  file: string,
  read: YamlText,
  options: LoadOptions = {},
): Promise<ReadonlyMap<string, Answer>> {
  const { ignores = () => false } = options
  const wanted = new Map<string, Reference>()
  visit(read.document, {
    Scalar(key, node, ancestors) {
      if (key === 'key' || typeof node.value !== 'string' || !node.value.includes('${')) return
      for (const reference of referencesIn(node.value)) {
        if (isFetched(reference) && !ignores(pathOf(node, ancestors))) wanted.set(keyOf(reference), reference)
      }
    },
  })
  const fetched = new Map<string, Answer>()
  if (wanted.size === 0) return fetched
  const config = placesOf(read.text, file, options)
  if (config === undefined) return fetched
  const sources = openSources(config, systemClock)
  try {
    for (const [kind, source] of sources) {
      const names = [...wanted.values()].filter((reference) => reference.kind === kind).map(({ name }) => name)
      if (names.length === 0) continue
      for (const [name, answer] of await source.read(names)) fetched.set(keyOf({ kind, name }), answer)
    }
  } finally {
    await Promise.all([...sources.values()].map((source) => source.close()))
  }
  return fetched
}

/**
 * The part of the configuration that says where secrets are. Undefined if it is wrong: then the configuration is
 * refused anyway.
 */
function placesOf(text: string, file: string, { env }: LoadOptions): Config | undefined {
  try {
    return parseConfig(text, {
      ...(env === undefined ? {} : { env }),
      source: file,
      folder: dirname(resolve(file)),
      ignores: ([first]) => first !== 'secrets' && first !== 'store',
    })
  } catch (error) {
    if (error instanceof ConfigError) return undefined
    throw error
  }
}
