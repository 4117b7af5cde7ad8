import { createRequire } from 'node:module'
import type * as Undici from 'undici'
// @ts-expect-error: these files have no types
import request from 'undici/lib/api/api-request.js'
// @ts-expect-error: see above
import connector from 'undici/lib/core/connect.js'
// @ts-expect-error: see above
import allErrors from 'undici/lib/core/errors.js'
// @ts-expect-error: see above
import dispatcher from 'undici/lib/dispatcher/dispatcher.js'
// @ts-expect-error: see above
import pool from 'undici/lib/dispatcher/pool.js'

/**
 * What forwards calls. As a whole, `undici` also loads `fetch`, mocks and caches, which make a start longer and take memory (see
 * `npm run bench:start`). The version of the package is fixed, so its files stay where they are.
 */
export const Pool = pool as typeof Undici.Pool
export type Pool = Undici.Pool
export const buildConnector = connector as typeof Undici.buildConnector
export const errors = allErrors as typeof Undici.errors

const require = createRequire(import.meta.url)

/** The rest of it, for what few configurations ask for. */
export function allOfUndici(): typeof Undici {
  return require('undici') as typeof Undici
}

// As undici does it when it is loaded as a whole.
Object.assign((dispatcher as typeof Undici.Dispatcher).prototype, { request: request as Undici.Dispatcher['request'] })
