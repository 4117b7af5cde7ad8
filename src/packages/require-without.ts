import { createRequire, registerHooks } from 'node:module'

const require = createRequire(import.meta.url)

/** A module that is there in any case, and small. */
const NOTHING = { url: 'node:path', format: 'builtin', shortCircuit: true }

/** Requires a package that needs these others only for what the gateway never asks of it. To the package they are there, and useless. */
export function requireWithout(name: string, unused: readonly string[]): unknown {
  const hooks = registerHooks({
    resolve: (asked, context, next) => (unused.includes(asked) ? NOTHING : next(asked, context)),
  })
  try {
    return require(name)
  } finally {
    hooks.deregister()
  }
}
