import { existsSync } from 'node:fs'
import { loadEnvironment, SOURCE } from './environment.ts'
import { fetchReferences } from './fetch.ts'
import { loadConfigFile } from './load.ts'
import type { Path } from './problem.ts'
import type { Config } from './schema.ts'

export interface FoundConfig {
  readonly config: Config
  /** The file, or `environment`. */
  readonly source: string
}

interface FindOptions {
  readonly env?: NodeJS.ProcessEnv
  /** Where a reference may stay unresolved, and so stand for nothing, because nobody will look there. */
  readonly ignores?: (path: Path) => boolean
}

/**
 * The configuration to use: the file that is named, else that of `SLUICE_CONFIG`, else `./sluice.yaml`, else what the
 * environment describes. Undefined if there is none of them; a `ConfigError` if it is wrong.
 */
export async function findConfig(
  file: string | undefined,
  { env = process.env, ignores = () => false }: FindOptions = {},
): Promise<FoundConfig | undefined> {
  const named = file ?? (env['SLUICE_CONFIG'] || undefined) ?? (existsSync('sluice.yaml') ? 'sluice.yaml' : undefined)
  if (named !== undefined) {
    const fetched = await fetchReferences(named, { env, ignores })
    return { config: loadConfigFile(named, { env, ignores, fetched }), source: named }
  }
  const config = loadEnvironment(env)
  return config && { config, source: SOURCE }
}
