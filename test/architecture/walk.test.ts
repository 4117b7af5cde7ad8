import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { readText } from '../deploy/repository.ts'

const WALK = fileURLToPath(new URL('walk.ts', import.meta.url))

/** As docs/architecture.md lists them: `1. [`src/x.ts`](../src/x.ts) `name`: what it does`. */
const listed = [
  ...readText('docs/architecture.md').matchAll(/^\d+\. \[`(src\/[^`]+)`\]\(\.\.\/\1\) `(#?\w+)`: \w/gm),
].map(([, file, name]) => `${file}#${name}`)

it('the files that docs/architecture.md lists for a plain GET are at most 30, and a call passes them in that order', () => {
  expect(listed.length).toBeGreaterThan(20)
  expect(listed.length).toBeLessThanOrEqual(30)
  const { stdout, stderr } = spawnSync(process.execPath, [WALK, ...listed], { encoding: 'utf8' })
  expect(stdout.trim().split('\n'), stderr).toEqual(listed)
})
