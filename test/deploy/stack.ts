import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findRedis, freePort } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { environmentOf, service } from './compose.ts'
import { imageCommand, imageEnvironment } from './dockerfile.ts'
import { Started } from './process.ts'
import { adapt, readText } from './repository.ts'

export interface Stack {
  readonly gateway: Started
  readonly url: string
  readonly adminPort: number
  readonly sandboxControlPort: number
  stop(): Promise<void>
}

/** What `docker compose up` starts, with the same commands and configuration, on free ports of loopback. */
export async function startStack(): Promise<Stack> {
  const [port, adminPort, sandboxPort, sandboxControlPort] = await Promise.all([1, 2, 3, 4].map(() => freePort()))
  const redis = await findRedis()
  const sandbox = new Started(
    (service('sandbox').command ?? []).map((part) =>
      part.replace('0.0.0.0', '127.0.0.1').replace('8090', `${sandboxPort}`).replace('8091', `${sandboxControlPort}`),
    ),
  )
  const folder = temporaryFolder('compose')
  const config = join(folder.path, 'sluice.yaml')
  writeFileSync(
    config,
    adapt(readText('deploy/compose/sluice.yaml'), {
      'host: 0.0.0.0': 'host: 127.0.0.1',
      'port: 8080': `port: ${port}`,
      'port: 9090': `port: ${adminPort}`,
      // A Redis that others use too may be the one that was found; on a busy machine it may be late.
      'redis://redis:6379': `${redis.url}\n  commandTimeout: 2s\n  prefix: sluice-compose-${process.pid}`,
      'http://sandbox:8090': `http://127.0.0.1:${sandboxPort}`,
    }),
  )
  const gateway = new Started(imageCommand(), {
    env: { ...imageEnvironment(), ...environmentOf('gateway'), SLUICE_CONFIG: config },
  })
  const stop = async (): Promise<void> => {
    await Promise.all([gateway.stop(), sandbox.stop()])
    await redis.stop()
    folder.remove()
  }
  try {
    await sandbox.answersAt(`http://127.0.0.1:${sandboxControlPort}/healthz`)
    await gateway.answersAt(`http://127.0.0.1:${adminPort}/readyz`)
  } catch (error) {
    await stop()
    throw error
  }
  return {
    gateway,
    url: `http://127.0.0.1:${port}`,
    adminPort: adminPort!,
    sandboxControlPort: sandboxControlPort!,
    stop,
  }
}
