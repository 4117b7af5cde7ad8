import { spawnSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { dockerfileStages, imageCommand, imageEnvironment, imageHealthCheck, imageInstructions } from './dockerfile.ts'
import { adapt, readText, ROOT } from './repository.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const everything = dockerfileStages().flat()
const PARTS = ['package.json', 'package-lock.json', 'bin', 'src', 'deploy/fill-compile-cache.ts']
const ignored = readText('.dockerignore').trim().split('\n')

describe('the Dockerfile', () => {
  it('builds every stage on the same pinned, slim Node 26', () => {
    const bases = everything.filter(({ name }) => name === 'FROM').map(({ text }) => text.split(' ')[0])
    expect(new Set(bases).size).toBe(1)
    expect(bases[0]).toMatch(/^node:26[\w.]*-(?:\w+-slim|alpine[\d.]+)$/)
  })

  it('has the same Node as the tests', () => {
    expect(process.versions.node).toMatch(/^26\./)
  })

  it('runs as a user that is not root, by number', () => {
    const users = imageInstructions('USER')
    expect(users).toHaveLength(1)
    expect(users[0]).toMatch(/^[1-9]\d*:[1-9]\d*$/)
  })

  it('starts the gateway itself, with no shell or script that would keep SIGTERM from it', () => {
    expect(imageCommand()).toEqual(['node', 'bin/sluice.cjs', 'start'])
    expect(imageInstructions('ENTRYPOINT')).toEqual(['[]'])
    expect(imageInstructions('STOPSIGNAL')).toEqual(['SIGTERM'])
  })

  it('checks the health with Node, without a shell', () => {
    expect(imageHealthCheck().slice(0, 2)).toEqual(['node', '-e'])
  })

  it('checks the health no more often than every ten seconds, and without the cost of fetch', () => {
    expect(imageInstructions('HEALTHCHECK')[0]).toMatch(/^--interval=10s /)
    expect(imageHealthCheck().join(' ')).not.toContain('fetch')
  })

  it('holds no secret, and asks for none while it is built', () => {
    expect(everything.map(({ name }) => name)).not.toContain('ARG')
    expect(imageEnvironment()).toEqual({ NODE_ENV: 'production', SLUICE_CONFIG: '/etc/sluice/sluice.yaml' })
  })

  it('installs exactly what the lock file says, without what only development needs, and runs no install script', () => {
    const installs = everything.filter(({ name, text }) => name === 'RUN' && text.includes('npm'))
    expect(installs.map(({ text }) => text)).toEqual(['npm ci --omit=dev --omit=optional --ignore-scripts'])
  })

  it('copies only the program, all of which is there and reaches the build', () => {
    const copied = everything
      .filter(({ name, text }) => name === 'COPY' && !text.includes('--from='))
      .flatMap(({ text }) => text.split(' ').slice(0, -1))
    expect(new Set(copied)).toEqual(new Set(PARTS))
    for (const source of copied) {
      expect(existsSync(join(ROOT, source)), source).toBe(true)
      expect(ignored).toContain(`!${source}`)
    }
  })

  it('leaves everything else of the checkout out of the build', () => {
    expect(ignored[0]).toBe('*')
    expect(new Set(ignored.slice(1))).toEqual(new Set(PARTS.map((part) => `!${part}`)))
  })

  it.skipIf(process.getuid?.() !== 0)('makes a folder for the embedded store that only its user can open', () => {
    const [user = '', group = ''] = imageInstructions('USER')[0]?.split(':') ?? []
    const [command = ''] = imageInstructions('RUN')
    using image = temporaryFolder('image')
    const folder = join(image.path, 'lib/sluice')
    expect(spawnSync('sh', ['-c', adapt(command, { '/var/lib/sluice': folder })]).status).toBe(0)
    const { uid, gid, mode } = statSync(folder)
    expect({ uid, gid, mode: mode & 0o777 }).toEqual({ uid: Number(user), gid: Number(group), mode: 0o700 })
  })
})
