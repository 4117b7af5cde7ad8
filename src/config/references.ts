import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'

/** What a scalar became: its text with every reference replaced, or what is wrong with one of them. */
export type Resolution = { text: string; referenced: boolean } | { problem: string }

// `$${` writes a literal `${`.
const REFERENCE = /\$\$\{|\$\{([^}]*)\}?/g

/**
 * Replaces `${env:NAME}` and `${file:PATH}` in one parsed scalar. The result is never parsed again, so a value can hold
 * any character; a reference that does not resolve is a problem, never a literal. One trailing line end of a file is dropped.
 */
export function resolveReferences(text: string, env: NodeJS.ProcessEnv, folder: string): Resolution {
  let problem: string | undefined
  let referenced = false
  const resolved = text.replace(REFERENCE, (whole, inner: string | undefined) => {
    if (whole === '$${') return '${'
    referenced = true
    const value = lookUp(inner ?? '', whole, env, folder)
    if ('problem' in value) {
      problem ??= value.problem
      return ''
    }
    return value.text
  })
  return problem === undefined ? { text: resolved, referenced } : { problem }
}

function lookUp(
  inner: string,
  whole: string,
  env: NodeJS.ProcessEnv,
  folder: string,
): { text: string } | { problem: string } {
  if (!whole.endsWith('}'))
    return { problem: 'a reference is not closed with "}"; write $${ where a text has ${ in it' }
  const colon = inner.indexOf(':')
  const kind = inner.slice(0, Math.max(colon, 0))
  const name = inner.slice(colon + 1)
  switch (kind) {
    case 'env': {
      const value = env[name]
      if (value === undefined) return { problem: `the environment variable ${name} is not set` }
      if (value === '') return { problem: `the environment variable ${name} is empty` }
      return { text: value }
    }
    case 'file':
      return readReferenced(resolve(folder, name), name)
    case '':
      return {
        problem: 'a reference names no source; write ${env:NAME} or ${file:/path}, and $${ where a text has ${ in it',
      }
    default:
      return { problem: 'a reference has an unknown source; known are env and file' }
  }
}

function readReferenced(path: string, name: string): { text: string } | { problem: string } {
  try {
    return { text: readFileSync(path, 'utf8').replace(/\r?\n$/, '') }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    const why = code === 'ENOENT' ? 'does not exist' : code === 'EACCES' ? 'may not be read' : `can't be read (${code})`
    return { problem: `the file ${name} ${why}` }
  }
}
