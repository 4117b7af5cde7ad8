import { type LoadOptions, parseConfigOf, readConfigFile } from '../../src/config/load.ts'
import type { Config } from '../../src/schema/schema.ts'

/** Reads a configuration from a YAML file, as the program does. */
export function loadConfigFile(file: string, options: LoadOptions = {}): Config {
  return parseConfigOf(file, readConfigFile(file, options), options)
}
