import { spawnSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { LAYERS } from '../.oxlintrc.ts'
import { temporaryFolder } from './support/temporary-folder.ts'

const ROOT = resolve(import.meta.dirname, '..')

describe('the list of folders', () => {
  const folders = Object.keys(LAYERS)

  it('names every folder of the source', () => {
    expect(folders.toSorted()).toEqual([...new Set(sources().map(dirname))].toSorted())
  })

  it('has folders that each say at the top of one file what they do, import and must prove', () => {
    const told = sources().flatMap((file) => /^\/\*\n \* src\/([a-z/-]+): /.exec(textOf(file))?.[1] ?? [])
    expect(told.toSorted()).toEqual(folders.filter((folder) => folder !== '.').toSorted())
  })

  it('lets each folder import only those that stand below it', () => {
    for (const [at, folder] of folders.entries()) {
      for (const below of namesIn(folder)) expect(folders.indexOf(below), `${folder} -> ${below}`).toBeGreaterThan(at)
    }
  })

  it('allows no import that nothing needs', () => {
    const used = new Set<string>()
    for (const file of sources()) {
      for (const [, path] of textOf(file).matchAll(/ (?:from |import\()'(\.[^']+\.ts)'/g)) {
        used.add(`${dirname(file)} -> ${dirname(join(dirname(file), path!))}`)
      }
    }
    const allowed = folders.flatMap((folder) => namesIn(folder).map((below) => `${folder} -> ${below}`))
    expect(allowed.filter((arrow) => !used.has(arrow))).toEqual([])
  })
})

describe('the diagram of docs/architecture.md', () => {
  const text = readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8')
  const [, diagram = ''] = /flowchart TD\n(.*?)^```/ms.exec(text) ?? []
  const arrows = diagram.split('\n').flatMap((line) => arrowsIn(line, diagram))
  const shown = new Set(arrows.flat())

  it('has no arrow that an import must not take', () => {
    expect(arrows.filter(([from, to]) => !namesIn(from).includes(to))).toEqual([])
  })

  it('says which folders it leaves out', () => {
    const [said = ''] = /^The diagram leaves out .*?\n\n/ms.exec(text) ?? []
    const named = [...said.matchAll(/`([^`]+)`/g)].map(([, name]) => name!)
    const folders = Object.keys(LAYERS).filter((folder) => folder !== '.' && !shown.has(folder))
    expect(named.toSorted()).toEqual(folders.toSorted())
  })
})

describe('the linter', () => {
  const wrong = {
    'a type from a folder above': [
      'time/up.ts',
      "import type { Config } from '../schema/schema.ts'\nexport type Up = Config\n",
    ],
    'a function from a folder above': ['ledger/up.ts', "export { Permit } from '../queue/permit.ts'\n"],
    'a folder above, as it runs': ['http/up.ts', "export const up = import('../upstream/headers.ts')\n"],
    'a folder inside of its own': ['server/in.ts', "export { buildAdmin } from './admin/admin.ts'\n"],
    'a folder below that is not in its line': ['records/side.ts', "export { dateOf } from '../http/date.ts'\n"],
    'the folder around its own': ['config/presets/out.ts', "export { findConfig } from '../find.ts'\n"],
  } as const
  const circle = {
    'queue/one.ts': "import type { Two } from './two.ts'\nexport type One = Two | 1\n",
    'queue/two.ts': "import type { One } from './one.ts'\nexport type Two = One[]\n",
  }
  const reported = new Map<string, string>()

  beforeAll(() => {
    using folder = temporaryFolder('layers')
    const copy = folder.path
    for (const name of ['src', '.oxlintrc.ts', 'package.json', 'tsconfig.json']) {
      cpSync(join(ROOT, name), join(copy, name), { recursive: true })
    }
    symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'))
    const written = [...Object.values(wrong), ...Object.entries(circle)]
    for (const [file, text] of written) writeFileSync(join(copy, 'src', file), text)
    const files = written.map(([file]) => join('src', file))
    const oxlint = join(ROOT, 'node_modules/oxlint/bin/oxlint')
    const args = [oxlint, '-c', '.oxlintrc.ts', '--format=json', ...files]
    const { stdout, status } = spawnSync(process.execPath, args, { cwd: copy, encoding: 'utf8' })
    const { diagnostics } = JSON.parse(stdout) as { diagnostics: { code: string; filename: string; help: string }[] }
    for (const { code, filename, help } of diagnostics) reported.set(relative('src', filename), `${code}: ${help}`)
    expect(status).toBe(1)
  })

  it.each(Object.entries(wrong))('refuses an import of %s', (_, [file]) => {
    expect(reported.get(file)).toMatch(/no-restricted-imports.*may import only/)
  })

  it.each(Object.keys(circle))('refuses a circle of files, if only by types: %s', (file) => {
    expect(reported.get(file)).toMatch(/no-cycle/)
  })
})

function namesIn(folder: string): string[] {
  return LAYERS[folder]!.split(' ').filter((name) => name !== '')
}

/** The arrows of a line such as `a --> b[its/folder] & c --> d`, as pairs of folders. */
function arrowsIn(line: string, diagram: string): [from: string, to: string][] {
  const steps = line.split('-->').map((step) => step.split('&').map((node) => folderOf(node.trim(), diagram)))
  return steps.slice(1).flatMap((to, i) => steps[i]!.flatMap((from) => to.map((one): [string, string] => [from, one])))
}

/** The text of a node in brackets, wherever in the diagram they stand. */
function folderOf(node: string, diagram: string): string {
  const [id = ''] = node.split('[')
  return new RegExp(`\\b${id}\\[(.*?)\\]`).exec(diagram)?.[1] ?? id
}

/** The TypeScript files below `src`. */
function sources(): string[] {
  return readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
}

function textOf(file: string): string {
  return readFileSync(join(ROOT, 'src', file), 'utf8')
}
