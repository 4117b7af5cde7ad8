import { checkConfig } from './load.ts'
import { harness } from './presets/harness.ts'
import { ConfigError, type Path, type Problem } from './problem.ts'
import { isBlank } from '../secrets/references.ts'
import { whyNoName } from '../schema/schema-parts.ts'
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
      error.problems.map((problem) => {
        const name = variableOf(problem.path, env)
        // The name is no step of the path, which would hide a long one as if it held a secret.
        return name === undefined ? problem : { path: [], message: `${name}: ${problem.message}` }
      }),
    )
  }
}

/** The variable that a place of the described configuration comes from. */
function variableOf(path: Path, env: NodeJS.ProcessEnv): string | undefined {
  const [, , field, account, detail] = path
  if (field === 'url') return URL_NAME
  if (field !== 'accounts' || account === undefined) return undefined
  const name = detail === 'id' ? ID : KEY
  const suffixed = `${name}_${String(account).toUpperCase()}`
  return suffixed in env ? suffixed : name
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
    const id = valueOf(ID + suffix, env)
    const key = valueOf(KEY + suffix, env)
    const name = suffix === '' ? FIRST_ACCOUNT : suffix.slice(1).toLowerCase()
    if (whyNoName(name) !== undefined) {
      const variable = key === undefined ? ID : KEY
      const message = `${variable}${suffix}: the part behind ${variable}_ is the account's name, and must begin with a letter or digit and have 63 characters at most`
      problems.push({ path: [], message })
    } else if (key === undefined) {
      problems.push({ path: [], message: `${ID}${suffix} is set, but ${KEY}${suffix} is not` })
    } else if (id === undefined && harness.accountInCredential?.(key) === undefined) {
      problems.push({
        path: [],
        message: `${KEY}${suffix} is set, but ${ID}${suffix} is not, and this key does not carry it`,
      })
    } else if (name in accounts) {
      problems.push({ path: [], message: `${KEY}${suffix} would be a second account named "${name}"` })
    } else {
      accounts[name] = { ...(id === undefined ? {} : { id }), credential: { value: key } }
    }
  }
  const url = valueOf(URL_NAME, env)
  if (url !== undefined && problems.length === 0 && Object.keys(accounts).length === 0) {
    problems.push({ path: [], message: `${URL_NAME} is set, but ${KEY} is not` })
  }
  if (problems.length > 0) throw new ConfigError(SOURCE, problems)
  if (Object.keys(accounts).length === 0) return undefined
  return {
    defaultUpstream: 'harness',
    upstreams: { harness: { preset: 'harness', ...(url === undefined ? {} : { url }), accounts } },
  }
}

function suffixesIn(env: NodeJS.ProcessEnv): Set<string> {
  const suffixes = new Set<string>()
  for (const name of Object.keys(env)) {
    const suffix = /^HARNESS_(?:ACCOUNT_ID|API_KEY)((?:_[A-Z0-9_]+)?)$/.exec(name)?.[1]
    if (suffix !== undefined && valueOf(name, env) !== undefined) suffixes.add(suffix)
  }
  return suffixes
}

/** The value of a variable. One that is empty or blank counts as not set. */
function valueOf(name: string, env: NodeJS.ProcessEnv): string | undefined {
  const value = env[name]
  return value === undefined || isBlank(value) ? undefined : value
}
