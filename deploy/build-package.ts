import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, globSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { decode, encode } from '@jridgewell/sourcemap-codec'
import { parseSync } from 'rolldown/utils'
import { bundle, licencesOf } from './bundle.ts'

/**
 * Builds `dist`, which a package runs instead of `src`: Node strips no types from files below node_modules, and a bundle starts sooner
 * (`npm run bench:start`). Beside its few modules lie their source maps, the files that are read at run time, at the same places as in `src`, and the
 * types. `npm pack` runs it.
 */

const NO_CODE = /^(?:ImportDeclaration|TSInterfaceDeclaration|TSTypeAliasDeclaration)$/
const root = resolve(import.meta.dirname, '..')
process.chdir(root)
rmSync('dist', { recursive: true, force: true })
const [parts] = await Promise.all([bundle('dist'), compile('--emitDeclarationOnly')])
writeFileSync('dist/licences.txt', licencesOf(parts))
keepReachable('dist/index.d.ts')
for (const map of globSync('dist/**/*.map')) mapLines(map)
for (const file of globSync('dist/*.js')) writeFileSync(file, withoutIndentation(file, readFileSync(file, 'utf8')))
for (const file of globSync('src/**', { exclude: ['**/*.ts'] })) {
  if (statSync(file).isFile()) cpSync(file, file.replace(/^src/, 'dist'))
}

async function compile(...options: string[]): Promise<void> {
  const compiler = spawn('tsc', ['-p', 'tsconfig.build.json', ...options], { stdio: 'inherit' })
  const [code] = (await once(compiler, 'exit')) as [number | null]
  if (code !== 0) process.exit(1)
}

/**
 * Keeps which line each line comes from, and the code of each line. Leaves out columns, names, comments, imports, types and
 * indentation, which would make the package much larger.
 */
function mapLines(file: string): void {
  const map = JSON.parse(readFileSync(file, 'utf8')) as {
    mappings: string
    sources: string[]
    sourcesContent: string[]
  }
  const mappings = encode(
    decode(map.mappings).map((line) =>
      line.slice(0, 1).map(([, source, from]) => (source === undefined ? [0] : [0, source, from!, 0])),
    ),
  )
  // A stack trace shows a line without its indentation.
  const sourcesContent = map.sourcesContent.map((source, n) =>
    onlyCode(map.sources[n]!, source).replaceAll(/^[ \t]+/gm, ''),
  )
  writeFileSync(file, JSON.stringify({ ...map, mappings, names: [], sourcesContent }))
}

/** What a stack trace may lead to: a source without its comments, imports and types. Its code stays on the same lines. */
function onlyCode(file: string, source: string): string {
  const { comments, program } = parseSync(file, source)
  const declarations = program.body.filter((one) =>
    NO_CODE.test((one.type === 'ExportNamedDeclaration' && one.declaration?.type) || one.type),
  )
  return without([...comments, ...declarations], source)
}

function withoutComments(file: string, source: string): string {
  return without(parseSync(file, source).comments, source)
}

/** The same code on the same lines. Texts of several lines keep their indentation. */
function withoutIndentation(file: string, code: string): string {
  const texts: { start: number; end: number }[] = []
  const collect = (node: object): void => {
    if ('type' in node && node.type === 'TemplateElement') texts.push(node as unknown as (typeof texts)[number])
    for (const child of Object.values(node)) if (typeof child === 'object' && child !== null) collect(child)
  }
  collect(parseSync(file, code).program)
  const isInText = (at: number): boolean => texts.some(({ start, end }) => start < at && at <= end)
  return code.replaceAll(/^[ \t]+/gm, (indentation, at: number) => (isInText(at) ? indentation : ''))
}

/** A text in which these parts are empty lines. */
function without(parts: readonly { readonly start: number; readonly end: number }[], text: string): string {
  let left = ''
  let at = 0
  for (const { start, end } of parts.toSorted((a, b) => a.start - b.start)) {
    if (end <= at) continue
    left += text.slice(at, start) + text.slice(start, end).replaceAll(/[^\n]/g, '')
    at = end
  }
  return (left + text.slice(at)).replaceAll(/[ \t]+$/gm, '')
}

/**
 * Removes the types of modules that nobody who embeds a gateway can get at; and the comments of those that are only reached through
 * others.
 */
function keepReachable(entry: string): void {
  const reachable = new Set<string>()
  const visit = (file: string, steps: number): void => {
    if (reachable.has(file)) return
    reachable.add(file)
    const types = readFileSync(file, 'utf8')
    for (const [, path = ''] of types.matchAll(/(?:from |import\()["'](\.[^"']+)\.[tj]s["']/g)) {
      visit(join(dirname(file), `${path}.d.ts`), steps + 1)
    }
    if (steps > 1) writeFileSync(file, withoutComments(file, types).replaceAll(/^\n/gm, ''))
  }
  visit(entry, 0)
  for (const file of globSync('dist/**/*.d.ts')) if (!reachable.has(file)) rmSync(file)
}
