import { createRequire, registerHooks } from 'node:module'

const require = createRequire(import.meta.url)

/** A module that is there in any case, and small. */
const NOTHING = { url: 'node:path', format: 'builtin', shortCircuit: true }

/**
 * Requires a package that needs these others only for what the gateway never asks of it. To the package they are there, and useless.
 * A program that embeds the gateway may require the same package, and then gets another one, with all its parts.
 */
export function requireWithout(name: string, unused: readonly string[]): unknown {
  const before = { ...require.cache }
  // What the program imports, and has not run yet, is there already.
  for (const [file, module] of Object.entries(before)) if (module?.loaded === false) delete require.cache[file]
  const hooks = registerHooks({
    resolve: (asked, context, next) => (unused.includes(asked) ? NOTHING : next(asked, context)),
  })
  try {
    return require(name)
  } finally {
    hooks.deregister()
    for (const file of Object.keys(require.cache)) if (!(file in before)) delete require.cache[file]
    Object.assign(require.cache, before)
  }
}
