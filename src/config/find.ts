/*
 * src/config: finds, reads and checks the configuration, and says everything that is wrong with it at once.
 * It imports what .oxlintrc.ts lists; the shape of a configuration is in schema, and only the program stands above.
 * A change here must prove that each mistake gets one message with its line, and that no message repeats a value
 * (test/config).
 */

import { existsSync } from 'node:fs'
import { loadEnvironment, SOURCE } from './environment.ts'
import { fetchReferences } from './fetch.ts'
import { type LoadOptions, parseConfigOf, readConfigFile } from './load.ts'
import type { Problem } from './problem.ts'
import type { Config } from '../schema/schema.ts'
import { textWarnings } from './warnings.ts'
import { readYaml } from './yaml.ts'

export interface FoundConfig {
  readonly config: Config
  /** The file, or `environment`. */
  readonly source: string
  /** The text of the file. */
  readonly text?: string
  /** What is wrong with how the text says it: see `textWarnings`. */
  readonly ofText?: readonly Problem[]
  /** The result of `allWarnings`, if it was called already. */
  readonly warnings?: readonly string[]
}

type FindOptions = Omit<LoadOptions, 'fetched'>

/**
 * Finds and reads the configuration: the given file, else that of `SLUICE_CONFIG`, else `./sluice.yaml`, else what the
 * environment describes. Undefined if there is none of them. Throws a `ConfigError` if it is wrong.
 */
export async function findConfig(
  file: string | undefined,
  { env = process.env, ...options }: FindOptions = {},
): Promise<FoundConfig | undefined> {
  const named = file ?? (env['SLUICE_CONFIG'] || undefined) ?? (existsSync('sluice.yaml') ? 'sluice.yaml' : undefined)
  if (named !== undefined) {
    const text = readConfigFile(named, options)
    return foundIn({ source: named, text }, { env, ...options })
  }
  const config = loadEnvironment(env)
  return config && { config, source: SOURCE }
}

/** Reads a configuration as if `text` were the content of that file. */
export async function configOf(file: string, text: string, options: FindOptions = {}): Promise<Config> {
  const { config } = await foundIn({ source: file, text }, options)
  return config
}

/** Reads a configuration as `configOf` does, and returns it with its source and text. */
export async function foundIn(
  { source, text }: { source: string; text: string },
  options: FindOptions = {},
): Promise<FoundConfig> {
  const read = readYaml(text)
  const fetched = await fetchReferences(source, read, options)
  // Next, values take the place of references.
  const ofText = textWarnings(read)
  return { config: parseConfigOf(source, read, { ...options, fetched }), source, text, ofText }
}
