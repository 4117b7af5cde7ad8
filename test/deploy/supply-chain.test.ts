import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ROOT } from './repository.ts'

interface Locked {
  readonly dev?: boolean
  readonly link?: boolean
  readonly hasInstallScript?: boolean
  readonly integrity?: string
}

const read = (name: string): unknown => JSON.parse(readFileSync(join(ROOT, name), 'utf8'))
const { dependencies, devDependencies, optionalDependencies, scripts } = read('package.json') as Record<
  'dependencies' | 'devDependencies' | 'optionalDependencies' | 'scripts',
  Record<string, string>
>
const { '': _root, ...packages } = (read('package-lock.json') as { packages: Record<string, Locked> }).packages
const needed = Object.entries(packages).filter(([, { dev }]) => dev !== true)

it('nothing that runs needs an install script, nor does an install run one of ours', () => {
  expect(needed.length).toBeGreaterThan(50)
  expect(needed.filter(([, { hasInstallScript }]) => hasInstallScript === true)).toEqual([])
  expect(Object.keys(scripts).filter((name) => /^(?:pre|post)?(?:install|prepare)$/.test(name))).toEqual([])
})

it('no package for development runs an install script either: each that has one is denied', () => {
  const { allowScripts } = read('package.json') as { allowScripts: Record<string, boolean> }
  const scripted = Object.entries(packages).filter(([, { hasInstallScript }]) => hasInstallScript === true)
  const names = scripted.map(([path]) => path.replace(/^.*node_modules\//, ''))
  expect(allowScripts).toEqual(Object.fromEntries(names.map((name) => [name, false])))
  // A package that is not in that list fails the install.
  expect(readFileSync(join(ROOT, '.npmrc'), 'utf8')).toMatch(/^strict-allow-scripts=true$/m)
})

it('every package is the very one that was chosen: exact versions, and a hash of its content', () => {
  const versions = Object.values({ ...dependencies, ...devDependencies, ...optionalDependencies })
  expect(versions.filter((version) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([])
  const unhashed = Object.entries(packages).filter(([, { integrity = '' }]) => !integrity.startsWith('sha512-'))
  expect(unhashed.map(([name]) => name)).toEqual([])
})

it('npm run sbom lists every dependency of the program', () => {
  const { status, stdout, stderr } = spawnSync('npm', ['run', '--silent', 'sbom'], { cwd: ROOT, encoding: 'utf8' })
  expect(status, stderr).toBe(0)
  const { bomFormat, components } = JSON.parse(stdout) as { bomFormat: string; components: Record<string, string>[] }
  expect(bomFormat).toBe('CycloneDX')
  const listed = components.map((component) => decodeURIComponent(component['purl'] ?? ''))
  const own = Object.entries(dependencies).map(([name, version]) => `pkg:npm/${name}@${version}`)
  expect(listed).toEqual(expect.arrayContaining(own))
})
