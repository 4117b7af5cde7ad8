import { createRequire, registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'
import type HttpProxy from '@fastify/http-proxy'

const require = createRequire(import.meta.url)

/** The plugin, with the undici of the gateway in place of its own. */
export const httpProxy = loadHttpProxy()

/**
 * What the plugin would forward with brings undici 7, and that loads the undici inside of Node. So there would be three, of which two are
 * never used: 110 modules more. `@fastify/reply-from` makes one agent of it, which the gateway never calls.
 */
function loadHttpProxy(): typeof HttpProxy {
  const undici = { url: pathToFileURL(require.resolve('undici')).href, format: 'commonjs', shortCircuit: true }
  const hooks = registerHooks({
    resolve: (name, context, next) => (name === 'undici' ? undici : next(name, context)),
  })
  try {
    return require('@fastify/http-proxy') as typeof HttpProxy
  } finally {
    hooks.deregister()
  }
}
