import { execFile } from 'node:child_process'
import { hash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ROOT } from '../deploy/repository.ts'
import { FOLDER } from './clients.ts'

/** Installed once for each list of versions, and kept beside the project's own packages. */
const CACHE = join(ROOT, 'node_modules/.cache/clients-tried')

/** The folder with the programs and the npm packages that they use; undefined, with the reason printed, if they can't be had. */
export function installFromNpm(): Promise<string | undefined> {
  return install('npm', 'package-lock.json', (folder) => {
    cpSync(join(FOLDER, 'package.json'), join(folder, 'package.json'))
    cpSync(join(FOLDER, 'package-lock.json'), join(folder, 'package-lock.json'))
    return ['npm', 'ci', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund']
  })
}

/** The same for the packages of Python: a folder for PYTHONPATH. */
export function installFromPyPi(): Promise<string | undefined> {
  return install('pip', 'requirements.txt', (folder) => {
    const options = ['--quiet', '--disable-pip-version-check', '--no-deps', '--retries', '1', '--timeout', '15']
    return ['python3', '-m', 'pip', 'install', ...options, '--target', folder, '-r', join(FOLDER, 'requirements.txt')]
  })
}

/** What was stopped may still write there for a moment. */
const REMOVED = { recursive: true, force: true, maxRetries: 5 }

async function install(name: string, list: string, prepare: (folder: string) => string[]): Promise<string | undefined> {
  const versions = hash('sha256', readFileSync(join(FOLDER, list))).slice(0, 16)
  const folder = join(CACHE, `${name}-${versions}`)
  if (existsSync(folder)) return folder
  // Another run may install the same: whoever is done first is taken.
  const own = `${folder}.${process.pid}`
  mkdirSync(own, { recursive: true })
  const [program = '', ...args] = prepare(own)
  try {
    await promisify(execFile)(program, args, { cwd: own, timeout: 120_000 })
  } catch (error) {
    rmSync(own, REMOVED)
    console.log(`NOT TRIED: clients from ${name} could not be installed: ${(error as Error).message}`)
    return undefined
  }
  try {
    renameSync(own, folder)
  } catch {
    rmSync(own, REMOVED)
  }
  return folder
}
