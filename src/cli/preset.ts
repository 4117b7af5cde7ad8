import { stringify, type ToStringOptions } from 'yaml'
import { presets } from '../config/presets/index.ts'
import type { Preset } from '../config/presets/preset.ts'
import { didYouMean } from '../config/problem.ts'
import type { RouteEntry } from '../routing/route-table.ts'
import { CommandError } from './command-error.ts'
import { printTable } from './table.ts'

/** Prints the names of the presets, with the base URL and the classes of each. */
export function listPresets(): void {
  const rows = Object.entries(presets).map(([name, { config }]) => {
    const { url = 'your own site' } = config as { url?: string }
    return [name, url, Object.keys(config.limits).join(' ')]
  })
  printTable(['PRESET', 'URL', 'CLASSES'], rows)
}

/**
 * Prints what a preset knows as the part of a configuration that says the same, to be read, or copied and changed. Throws a
 * `CommandError` for a name that no preset has.
 */
export function showPreset(name: string, options: { readonly routes?: boolean }): void {
  const preset = presetNamed(name)
  const { config, limitSets = {}, aliasPrefix } = preset
  // Limits whose scope is a segment, such as {issueIdOrKey}, are refused without a route that has it.
  const routes = options.routes === true || JSON.stringify(config.limits).includes('"{')
  const listed = preset.routes()
  const sets = Object.keys(limitSets)
  const notes = [
    `What \`preset: ${name}\` stands for. A configuration that has the preset can override any of it, its limits class by class.`,
    ...(sets.length > 0 ? [`Other limits by limitSet: ${sets.join(', ')}.`] : []),
    ...(aliasPrefix === undefined ? [] : [`Only the preset knows that ${aliasPrefix} leads to the same paths.`]),
    `Only the preset knows the class of calls that no route lists.${routes ? '' : ` It lists ${listed.length}: see --routes.`}`,
  ]
  const upstream = { ...config, ...(routes ? { routes: listed.map(routeConfigOf) } : {}) }
  const flat = { collectionStyle: 'flow', flowCollectionPadding: true, lineWidth: 0 } as const
  const lines: string[] = []
  for (const [field, value] of Object.entries(upstream)) {
    if (field !== 'limits' && field !== 'routes') lines.push(`    ${field}: ${stringify(value, flat).trim()}`)
    else lines.push(`    ${field}:`, ...entriesOf(value, flat))
  }
  process.stdout.write([...notes.map((note) => `# ${note}`), 'upstreams:', `  ${name}:`, ...lines, ''].join('\n'))
}

function entriesOf(value: object, options: ToStringOptions): string[] {
  if (Array.isArray(value)) return value.map((entry) => `      - ${stringify(entry, options).trim()}`)
  return Object.entries(value).map(([key, entry]) => `      ${key}: ${stringify(entry, options).trim()}`)
}

/** The preset of a name. Throws a `CommandError` that proposes the one that may be meant. */
export function presetNamed(name: string): Preset {
  const preset = Object.hasOwn(presets, name) ? presets[name] : undefined
  if (preset !== undefined) return preset
  const names = Object.keys(presets)
  throw new CommandError(`there is no preset "${name}"${didYouMean(name, names)}`)
}

/** An entry of a preset's table as an entry of `routes`. */
function routeConfigOf({ methods, path, rule }: RouteEntry): object {
  const { class: className, charges = [className], retry, credential, cost, breaker, secretSegments = [] } = rule
  const segments = path.split('/').filter((segment) => segment !== '')
  const redact = secretSegments.flatMap((at) => /\{([^{}]+)\}/.exec(segments[at] ?? '')?.[1] ?? [])
  return {
    ...(methods === undefined ? {} : { method: methods.length === 1 ? methods[0] : methods }),
    path,
    class: className,
    ...(charges.length === 1 && charges[0] === className ? {} : { charges }),
    ...(retry === undefined ? {} : { retry }),
    ...(cost === undefined ? {} : { cost }),
    ...(credential === undefined ? {} : { credential }),
    ...(breaker === undefined ? {} : { breaker }),
    ...(redact.length === 0 ? {} : { redact }),
  }
}
