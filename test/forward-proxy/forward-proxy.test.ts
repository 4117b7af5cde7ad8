import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ForwardProxyWorld, KEYS, openWorld, VENDOR_KEY } from '../support/forward-proxy.ts'

let world: ForwardProxyWorld
beforeAll(async () => {
  world = await openWorld()
})
afterAll(() => world.close())

const run = promisify(execFile)
const curl = async (...args: string[]): Promise<string> => {
  const { stdout } = await run('curl', ['-sS', '--max-time', '20', '--cacert', join(world.ca, 'ca.pem'), ...args])
  return stdout
}

describe('a tunnel to an upstream', () => {
  for (const version of ['1.1', '2'])
    it(`serves calls of HTTP/${version} like those of any client: with credential, quota and log`, async () => {
      const answer = await curl(
        `--http${version}`,
        '-x',
        world.proxyFor(KEYS.tool),
        '-H',
        'authorization: Bearer dummy',
        '-w',
        '%{http_version}',
        `https://${world.vendor}/v2/items?a=b`,
        '-d',
        'x=1',
      )
      expect(answer).toContain(`"url":"/v2/items?a=b","body":"x=1"}${version}`)
      expect(world.seen.at(-1)).toMatchObject({ method: 'POST', headers: { authorization: `Bearer ${VENDOR_KEY}` } })
      expect(world.seen.at(-1)!.headers).not.toHaveProperty('proxy-authorization')
      expect(world.lines.at(-1)).toMatchObject({
        client: 'tool',
        upstream: 'vendor',
        class: 'write',
        path: '/v2/items',
        outcome: 'delivered',
      })
    })
})
