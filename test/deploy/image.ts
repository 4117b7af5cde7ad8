import { spawn, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { DEMO_ACCOUNT, DEMO_KEY } from '../../src/cli/demo.ts'
import { createKey } from '../../src/clients/keys.ts'
import { hasProgram } from '../support/packages.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { dockerfileStages } from './dockerfile.ts'
import { ROOT } from './repository.ts'

/**
 * `npm run image:check`: builds the image of the Dockerfile, runs it as Compose and Kubernetes do (no root, nothing to write on, no
 * privileges), and asks of it what they do: health, calls, an end in order. Needs buildah, podman and runc, and no daemon. The base
 * image is made of this machine's own programs under the name that FROM uses, so no registry of images is asked. Takes a minute
 * on two cores.
 */

const NEEDED = ['buildah', 'podman', 'runc']
const IMAGE = 'sluice:check'
const GATEWAY = 'gateway'
const SANDBOX = 'sandbox'
/** What ends a check that hangs. */
const WITHIN_MS = 120_000
/** What `sh -c` of a RUN instruction may run, besides Node and npm. */
const PROGRAMS = ['sh', 'install', 'env', 'mkdir', 'chown', 'chmod', 'id']
const AUTHORITIES = '/etc/ssl/certs/ca-certificates.crt'
/** As deploy/ has it. The limits are for machines on which nobody may raise any. */
const RESTRICTIONS =
  '--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --ulimit nofile=1024:1024 --ulimit nproc=512:512'.split(
    ' ',
  )

/** Whether Node needs its compiler of TypeScript for the gateway, as without the compile cache of the image. */
const USES_COMPILER = `require('module').enableCompileCache('/app/node_modules/.cache/compile')
  import('/app/src/process/run.ts').then(() => console.log(process.moduleLoadList.some((name) => name.includes('amaro'))))`
const RESIDENT = `console.log(Math.round(/VmRSS: *(\\d+)/.exec(fs.readFileSync('/proc/1/status', 'utf8').replaceAll('\\t', ''))[1] / 1024))`

/** Why this machine can build or run no image at all, ours or another. */
class Unable extends Error {}

try {
  const missing = NEEDED.filter((program) => !hasProgram(program))
  if (missing.length > 0) throw new Unable(`${missing.join(', ')} cannot be found`)
  await checkImage()
} catch (error) {
  if (!(error instanceof Unable)) throw error
  console.log(`NOT CHECKED: the image was not built and run, because ${error.message}`)
  if (process.env['IMAGE_CHECK'] === 'required') process.exitCode = 1
}

/** Runs a command to its end, and says what it printed; throws, with all of it, if it fails. */
type Command = (...args: string[]) => string

async function checkImage(): Promise<void> {
  using folder = temporaryFolder('image')
  const begun = performance.now()
  // Of its own, so that neither the images of this machine nor those of another check are touched.
  const storage = ['--root', join(folder.path, 'storage'), '--runroot', join(folder.path, 'run')]
  const buildah = command('buildah', storage)
  const podman = command('podman', [...storage, '--runtime', 'runc'])
  try {
    try {
      const base = buildBase(buildah, join(folder.path, 'base'))
      podman('run', '--rm', '--network', 'none', ...RESTRICTIONS, base, 'node', '--version')
    } catch (error) {
      throw new Unable(`a container with nothing but Node does not run here: ${(error as Error).message}`)
    }
    const authorities = existsSync(AUTHORITIES) ? ['--volume', `${AUTHORITIES}:${AUTHORITIES}:ro`] : []
    const cache = command('npm', ['config', 'get', 'cache'])().trim()
    mkdirSync(cache, { recursive: true })
    const mounts = [...authorities, '--volume', `${cache}:/root/.npm`]
    buildah('bud', '--pull-never', '--format', 'docker', '--isolation', 'chroot', ...mounts, '-t', IMAGE, ROOT)
    const [{ Size, User } = { Size: NaN, User: '' }] = JSON.parse(podman('image', 'inspect', IMAGE)) as ImageFacts[]
    say(`built in ${secondsSince(begun)}, ${Math.round(Size / 1e6)} MB`)
    check(/^[1-9]\d*:[1-9]\d*$/.test(User), `runs as ${User}, which is not root`)
    await runAsDeployed(podman, folder.path, [...storage, '--runtime', 'runc'])
    say(`passed in ${secondsSince(begun)}`)
  } finally {
    // What is still mounted would keep the folder from being removed.
    spawnSync('podman', [...storage, '--runtime', 'runc', 'rm', '--all', '--force', '--time', '0'])
    spawnSync('podman', [...storage, 'rmi', '--all', '--force'])
  }
}

interface ImageFacts {
  readonly Size: number
  readonly User: string
}

/** Node, npm and a shell with what they load: what the real base has of them comes from Debian, as this machine's may. */
function buildBase(buildah: Command, root: string): string {
  const [from = ''] = dockerfileStages()[0]!.map(({ text }) => text.split(' ')[0])
  for (const path of [
    'tmp',
    'etc/ssl/certs',
    'root',
    'var/lib',
    'var/tmp',
    'usr/bin',
    'usr/lib',
    'usr/lib64',
    'usr/local/bin',
    'usr/local/etc',
    'usr/local/lib/node_modules',
  ]) {
    mkdirSync(join(root, path), { recursive: true })
  }
  for (const name of ['bin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, join(root, name))
  const programs = PROGRAMS.map(pathOf)
  for (const program of programs) cpSync(realpathSync(program), join(root, 'usr/bin', program.split('/').at(-1)!))
  cpSync(realpathSync(process.execPath), join(root, 'usr/local/bin/node'))
  for (const library of new Set([...programs, process.execPath].flatMap(librariesOf))) {
    mkdirSync(join(root, dirname(library)), { recursive: true })
    cpSync(realpathSync(library), join(root, library))
  }
  const npm = dirname(dirname(realpathSync(pathOf('npm'))))
  cpSync(npm, join(root, 'usr/local/lib/node_modules/npm'), { recursive: true })
  symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(root, 'usr/local/bin/npm'))
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n')
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nnode:x:1000:\n')
  writeFileSync(
    join(root, 'usr/local/etc/npmrc'),
    `cafile=${AUTHORITIES}\nprefer-offline=true\nupdate-notifier=false\n`,
  )
  const container = buildah('from', 'scratch').trim()
  buildah('add', '--quiet', container, root, '/')
  buildah('config', '--env', 'PATH=/usr/local/bin:/usr/bin:/bin', container)
  const name = `docker.io/library/${from}`
  buildah('commit', '--quiet', '--rm', '--disable-compression', container, name)
  rmSync(root, { recursive: true })
  return name
}

function pathOf(program: string): string {
  return command('sh', ['-c', `command -v ${program}`])().trim()
}

function librariesOf(program: string): string[] {
  return spawnSync('ldd', [program], { encoding: 'utf8' }).stdout.match(/\/\S+\.so\S*/g) ?? []
}

async function runAsDeployed(podman: Command, folder: string, options: readonly string[]): Promise<void> {
  const { key, keyHash } = createKey()
  const config = join(folder, 'sluice.yaml')
  const credential = { value: DEMO_KEY }
  const harness = {
    preset: 'harness',
    url: 'http://127.0.0.1:8090',
    accounts: { demo: { id: DEMO_ACCOUNT, credential } },
  }
  writeFileSync(
    config,
    JSON.stringify({
      server: { host: '0.0.0.0', drain: '10s' },
      admin: { host: '0.0.0.0', token: 'of this check only' },
      store: { kind: 'memory', dir: '/var/lib/sluice' },
      upstreams: { harness },
      clients: { check: { keys: [keyHash] } },
    }),
    { mode: 0o644 },
  )
  // Alone with each other: no port of this machine is taken, and nothing outside is reached.
  podman(
    'run',
    '-d',
    '--name',
    SANDBOX,
    '--network',
    'none',
    '--no-healthcheck',
    ...RESTRICTIONS,
    IMAGE,
    'node',
    'bin/sluice.cjs',
    'sandbox',
  )
  const volumes = ['-v', 'sluice-store:/var/lib/sluice', '-v', `${config}:/etc/sluice/sluice.yaml:ro`]
  podman('run', '-d', '--name', GATEWAY, '--network', `container:${SANDBOX}`, ...volumes, ...RESTRICTIONS, IMAGE)
  const node = (code: string): string => podman('exec', GATEWAY, 'node', '-e', code).trim()
  await until(
    'passes its health check',
    () => spawnSync('podman', [...options, 'healthcheck', 'run', GATEWAY]).status === 0,
  )
  check(podman('exec', GATEWAY, 'id', '-u').trim() === '1000', 'its process is not root')
  for (const options of [[], ['--managed-zone-memory']]) {
    const uses = podman('exec', GATEWAY, 'node', ...options, '-e', USES_COMPILER).trim()
    check(uses === 'false', `node ${options.join(' ')} finds compiled what it runs`)
  }
  say(`holds ${node(RESIDENT)} MB at rest`)
  const isRefused = node(
    `try { fs.writeFileSync('/app/x', ''); console.log('written') } catch ({ code }) { console.log(code) }`,
  )
  check(isRefused === 'EROFS', 'its files cannot be written')
  const call = `fetch('http://127.0.0.1:8080/harness/ng/api/projects?accountIdentifier=${DEMO_ACCOUNT}', { headers: { 'x-sluice-key': '${key}' } }).then((response) => console.log(response.status))`
  check(node(call) === '200', 'a call with a client’s key is served')
  check(node(call.replace(key, createKey().key)) === '401', 'a call with another key is refused')
  const written = podman('exec', GATEWAY, 'node', '-p', "fs.readdirSync('/var/lib/sluice').length").trim()
  check(Number(written) > 0, 'its volume keeps the quotas')

  // The vendor takes three seconds for an answer; meanwhile the gateway is told to stop.
  const slow = spawn('podman', [...options, 'exec', SANDBOX, 'node', '-e', slowCall(call)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const said: string[] = []
  for await (const line of createInterface({ input: slow.stdout })) {
    said.push(line)
    if (line === 'on its way') podman('stop', '--time', '20', GATEWAY)
  }
  check(said.at(-1) === '200', 'a call that runs at SIGTERM gets its answer')
  const code = podman('inspect', GATEWAY, '--format', '{{.State.ExitCode}}').trim()
  check(code === '0', 'SIGTERM ends it with code 0')
}

/** Says when the call has come to the vendor, and then the status of its answer. */
function slowCall(call: string): string {
  return `(async () => {
    const control = 'http://127.0.0.1:8091'
    await fetch(control + '/faults', { method: 'PUT', body: '{"latencyMs":3000}' })
    await fetch(control + '/reset', { method: 'POST' })
    const answered = ${call}
    while ((await (await fetch(control + '/seen')).json()).length === 0);
    console.log('on its way')
    await answered
  })()`
}

function command(program: string, first: readonly string[]): Command {
  return (...rest) => {
    const args = [...first, ...rest]
    const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', timeout: WITHIN_MS })
    if (status === 0) return stdout
    throw new Error(`${program} ${args.join(' ')} ended with ${error?.message ?? status}:\n${stdout}${stderr}`)
  }
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  const end = performance.now() + WITHIN_MS
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`the image fails where it should say: ${what}`)
    await pause(200)
  }
  say(what)
}

function check(isSo: boolean, what: string): void {
  if (!isSo) throw new Error(`the image fails where it should say: ${what}`)
  say(what)
}

function say(what: string): void {
  console.log(`image: ${what}`)
}

function secondsSince(since: number): string {
  return `${Math.round((performance.now() - since) / 1_000)} s`
}
