import { type LoadOptions, parseConfig, parseConfigOf, readConfigFile } from '../../src/config/load.ts'
import { ConfigError } from '../../src/config/problem.ts'
import type { Config } from '../../src/schema/schema.ts'

/** Reads a configuration from a YAML file, as the program does. */
export function loadConfigFile(file: string, options: LoadOptions = {}): Config {
  return parseConfigOf(file, readConfigFile(file, options), options)
}

/** The lines of the error that a configuration causes; none if it is right. */
export function problemsIn(text: string, env: NodeJS.ProcessEnv = {}, source = 'sluice.yaml'): string[] {
  try {
    parseConfig(text, { source, env })
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split('\n')
    throw error
  }
  return []
}
