import { readdirSync, readFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { type OutputChunk, rolldown } from 'rolldown'
import { minify } from 'rolldown/utils'

const ROOT = resolve(import.meta.dirname, '..')
const SOURCE = join(ROOT, 'src')

/**
 * Packages whose code goes into the bundle: TypeBox has 700 small modules and yaml 70, and a start would read them all. The others stay
 * outside, since the package would be larger than a megabyte.
 */
const INSIDE = new Set(['typebox', 'yaml'])
const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { dependencies: object }
const outside = Object.keys(dependencies).filter((name) => !INSIDE.has(name))

/**
 * Makes a few modules in `folder` of the program and the library, so that a start reads 20 files in place of 350. A command, which is
 * loaded when it runs, stays a module of its own. `files` is an expression for the URL of a file in the folder that holds what is
 * no TypeScript, at the same place as in `src`.
 */
export async function bundle(folder: string, files = 'import.meta.url'): Promise<OutputChunk[]> {
  await using build = await rolldown({
    input: { main: join(SOURCE, 'main.ts'), index: join(SOURCE, 'index.ts') },
    platform: 'node',
    // Not the name of each module above its code: the maps have it.
    experimental: { attachDebugInfo: 'none' },
    transform: { target: 'esnext' },
    external: (id) => outside.some((name) => id === name || id.startsWith(`${name}/`)),
    plugins: [
      {
        name: 'files that are no code',
        transform(code, id) {
          if (!id.startsWith(SOURCE) || !code.includes('import.meta.url')) return undefined
          const place = JSON.stringify(relative(SOURCE, id).replace(/ts$/, 'js'))
          return { code: code.replaceAll('import.meta.url', `new URL(${place}, ${files}).href`), map: null }
        },
      },
      {
        name: 'packages in short',
        async transform(code, id) {
          if (!/\/node_modules\/.*\.[cm]?js$/.test(id)) return undefined
          return { code: (await minify(id, code)).code, map: { mappings: '' } }
        },
      },
    ],
  })
  // A chunk must lie beside the entries, because all of them look for files from where they are.
  const { output } = await build.write({
    dir: folder,
    sourcemap: true,
    chunkFileNames: 'part-[name].js',
    comments: { legal: true, annotation: false, jsdoc: false },
  })
  return output.filter((part) => part.type === 'chunk')
}

/** The licences of the packages in a bundle. They have to go wherever a copy of that code goes. */
export function licencesOf(parts: readonly OutputChunk[]): string {
  const modules = parts.flatMap(({ moduleIds }) => moduleIds)
  const folders = new Set(modules.flatMap((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0] ?? []))
  const licences = [...folders].toSorted().map((folder) => {
    const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Record<string, string>
    const texts = readdirSync(folder).filter((file) => /^licen[cs]e/i.test(file))
    const words = texts.map((file) => readFileSync(join(folder, file), 'utf8').trim())
    return [`${manifest['name']} ${manifest['version']} (${manifest['license']})`, ...words].join('\n\n')
  })
  return `${licences.join(`\n\n${'-'.repeat(80)}\n\n`)}\n`
}
