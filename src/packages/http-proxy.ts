import type HttpProxy from '@fastify/http-proxy'
import { requireWithout } from './require-without.ts'

/**
 * The plugin without what it would forward with: the gateway forwards by itself, and hands WebSockets on as they are. It has to be
 * registered with `undici: false`. Its undici would be a second one, and load a third, which is inside of Node.
 */
export const httpProxy = requireWithout('@fastify/http-proxy', ['undici', 'ws']) as typeof HttpProxy
