import { resolve } from 'node:path'
import { readSecretFile } from './files.ts'
import type { Answer, Found } from './source.ts'

/** A scalar with every reference replaced, or what is wrong with one of them. */
export type Resolution = (Found & { readonly referenced: boolean }) | { readonly problem: string } | Unasked

/** A reference whose value had to be fetched beforehand, and was not. */
export interface Unasked {
  readonly problem: string
  readonly isUnasked: true
}

/** A reference `${kind:name}`. */
export interface Reference {
  readonly kind: string
  readonly name: string
}

export type LookUp = (reference: Reference) => Answer | Unasked

// `$${` writes a literal `${`.
const REFERENCE = /\$\$\{|\$\{([^}]*)\}?/g

/** Kinds of references whose values are fetched before the configuration is read, because that takes time. */
const FETCHED_KINDS = new Set(['secret', 'vault'])

/**
 * Replaces every reference in one parsed scalar. The result is never parsed again, so a value may contain any
 * character. A reference that does not resolve is a problem and never stays as literal text.
 */
export function resolveReferences(text: string, lookUp: LookUp): Resolution {
  const found = new Map<string, Found>()
  for (const whole of wholesIn(text)) {
    if (!whole.endsWith('}'))
      return { problem: 'a reference is not closed with "}"; write $${ where a text has ${ in it' }
    const reference = toReference(whole)
    const value = lookUp(reference)
    if ('problem' in value) return value
    const problem = whyEmpty(reference, value)
    if (problem !== undefined) return { problem }
    found.set(whole, value)
  }
  const render = (valueOf: (found: Found) => string): string =>
    text.replace(REFERENCE, (whole) => (whole === '$${' ? '${' : valueOf(found.get(whole)!)))
  const values = [...found.values()]
  const hasNext = values.some(({ next }) => next !== undefined)
  const expiries = values.flatMap(({ expiresAt }) => expiresAt ?? [])
  const nextExpiries = values.flatMap(
    (value) => (value.next === undefined ? value.expiresAt : value.nextExpiresAt) ?? [],
  )
  return {
    text: render((value) => value.text),
    referenced: found.size > 0,
    ...(hasNext ? { next: render((value) => value.next ?? value.text) } : {}),
    ...(expiries.length > 0 ? { expiresAt: Math.min(...expiries) } : {}),
    ...(hasNext && nextExpiries.length > 0 ? { nextExpiresAt: Math.min(...nextExpiries) } : {}),
  }
}

/**
 * What is wrong with a value, or its next value, if it is blank. Otherwise `Bearer ${file:x}` would be sent without a
 * credential: a file is empty for a moment while it is written.
 */
export function whyEmpty({ kind, name }: Reference, { text, next }: Found): string | undefined {
  if (!isBlank(text) && (next === undefined || !isBlank(next))) return undefined
  const what = { env: 'the environment variable', file: 'the file', secret: 'the secret', vault: 'the Vault secret' }
  return `${what[kind as keyof typeof what] ?? kind} ${name} is empty`
}

/** Whether a text is blank. A crash may leave zero bytes of a file that was being written. */
export function isBlank(text: string): boolean {
  return /^[\s\0]*$/.test(text)
}

/** The well-formed references in a text. */
export function referencesIn(text: string): Reference[] {
  return wholesIn(text)
    .filter((whole) => whole.endsWith('}'))
    .map(toReference)
}

export function isFetched({ kind }: Reference): boolean {
  return FETCHED_KINDS.has(kind)
}

export function keyOf({ kind, name }: Reference): string {
  return `${kind}:${name}`
}

function wholesIn(text: string): string[] {
  return (text.match(REFERENCE) ?? []).filter((whole) => whole !== '$${')
}

function toReference(whole: string): Reference {
  const inner = whole.slice(2, -1)
  const colon = inner.indexOf(':')
  return { kind: inner.slice(0, Math.max(colon, 0)), name: inner.slice(colon + 1) }
}

/**
 * Returns a function that looks up references: in the environment, in files (relative to `folder`), and among the
 * values fetched beforehand. It calls `onFile` with every file before it reads it.
 */
export function lookUpWith(
  env: NodeJS.ProcessEnv,
  folder: string,
  fetched: ReadonlyMap<string, Answer> = new Map(),
  onFile: (path: string) => void = () => undefined,
): LookUp {
  return (reference) => {
    const { kind, name } = reference
    if (kind !== '' && isBlank(name))
      return { problem: 'a reference has no name behind its ":"; write ${env:NAME} or ${file:/path}' }
    // Others read a default behind the name, which may be a secret.
    if (/:[-=?+]/.test(name)) return { problem: 'a reference has no default: leave out what stands behind the name' }
    switch (kind) {
      case 'env': {
        // `valueOf` and its like are inherited, and no variables.
        if (Object.hasOwn(env, name)) return { text: env[name]! }
        const [word] = /^\w*/.exec(name)!
        const shown = word === name ? `${name} is not set` : `${word}… is not set; a reference has no default`
        return { problem: `the environment variable ${shown}` }
      }
      case 'file': {
        const path = resolve(folder, name)
        onFile(path)
        return readSecretFile(path, name)
      }
      case 'secret':
      case 'vault':
        return (
          fetched.get(keyOf(reference)) ?? {
            problem: `the ${kind} ${name} was not looked up`,
            isUnasked: true as const,
          }
        )
      case '':
        return {
          problem: 'a reference names no source; write ${env:NAME} or ${file:/path}, and $${ where a text has ${ in it',
        }
      default:
        return { problem: 'a reference has an unknown source; known are env, file, secret and vault' }
    }
  }
}
