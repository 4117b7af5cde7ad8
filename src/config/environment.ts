import { checkConfig } from './load.ts'
import { harness } from './presets/harness.ts'
import { ConfigError, type Path, type Problem } from './problem.ts'
import type { Config } from '../schema/schema.ts'

const URL_NAME = 'HARNESS_BASE_URL'
const ID = 'HARNESS_ACCOUNT_ID'
const KEY = 'HARNESS_API_KEY'
const FIRST_ACCOUNT = 'prod'

/** The name of the environment in messages. */
export const SOURCE = 'environment'

/** Reads and checks the configuration that the environment describes. A problem names the variable that it is in. */
export function loadEnvironment(env: NodeJS.ProcessEnv): Config | undefined {
  const described = configFromEnvironment(env)
  try {
    return described && checkConfig(described, SOURCE)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new ConfigError(
      SOURCE,
      error.problems.map(({ path, message }) => ({ path: variableOf(path, env), message })),
    )
  }
}

/** The variable that a place of the described configuration comes from. */
function variableOf(path: Path, env: NodeJS.ProcessEnv): Path {
  const [, , field, account, detail] = path
  if (field === 'url') return [URL_NAME]
  if (field !== 'accounts' || account === undefined) return path
  const name = detail === 'id' ? ID : KEY
  const suffixed = `${name}_${String(account).toUpperCase()}`
  return [suffixed in env ? suffixed : name]
}

/**
 * The configuration of Harness from the environment: the account of `HARNESS_ACCOUNT_ID` and `HARNESS_API_KEY`, and one
 * more for each suffix, as in `HARNESS_API_KEY_STAGING`. Undefined if no such variable is set. Throws a `ConfigError`
 * if they are incomplete.
 */
function configFromEnvironment(env: NodeJS.ProcessEnv): object | undefined {
  const accounts: Record<string, object> = {}
  const problems: Problem[] = []
  for (const suffix of suffixesIn(env)) {
    const id = env[ID + suffix]
    const key = env[KEY + suffix]
    const name = suffix === '' ? FIRST_ACCOUNT : suffix.slice(1).toLowerCase()
    if (key === undefined || key === '') {
      problems.push({ path: [], message: `${ID}${suffix} is set, but ${KEY}${suffix} is not` })
    } else if ((id === undefined || id === '') && harness.accountInCredential?.(key) === undefined) {
      problems.push({
        path: [],
        message: `${KEY}${suffix} is set, but ${ID}${suffix} is not, and this key does not carry it`,
      })
    } else if (name in accounts) {
      problems.push({ path: [], message: `${KEY}${suffix} would be a second account named "${name}"` })
    } else {
      accounts[name] = { ...(id ? { id } : {}), credential: { value: key } }
    }
  }
  const url = env[URL_NAME]
  if (url && problems.length === 0 && Object.keys(accounts).length === 0) {
    problems.push({ path: [], message: `${URL_NAME} is set, but ${KEY} is not` })
  }
  if (problems.length > 0) throw new ConfigError(SOURCE, problems)
  if (Object.keys(accounts).length === 0) return undefined
  return {
    defaultUpstream: 'harness',
    upstreams: { harness: { preset: 'harness', ...(url ? { url } : {}), accounts } },
  }
}

function suffixesIn(env: NodeJS.ProcessEnv): Set<string> {
  const suffixes = new Set<string>()
  for (const [name, value] of Object.entries(env)) {
    const suffix = /^HARNESS_(?:ACCOUNT_ID|API_KEY)((?:_[A-Z0-9_]+)?)$/.exec(name)?.[1]
    if (suffix !== undefined && value !== '') suffixes.add(suffix)
  }
  return suffixes
}
