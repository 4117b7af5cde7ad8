import { readFileSync } from 'node:fs'

/** What the package says of itself. From `dist` it is as far away as from `src`; as an import it would become a part of `dist`. */
export const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  readonly version: string
}
