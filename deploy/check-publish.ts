import { readFileSync } from 'node:fs'

/**
 * Ends with 1, and says what is missing, unless the package in the current folder says where it comes from and under which terms.
 * `npm publish` runs it. The repository and its owner are nowhere in the tree: an address that is only a guess may be somebody else's.
 */

const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as Record<string, string>
const missing = ['repository', 'homepage', 'bugs', 'license'].filter((field) =>
  [undefined, 'UNLICENSED'].includes(manifest[field]),
)
if (missing.length > 0) {
  console.error(
    `package.json does not say what is true of: ${missing.join(', ')}. Its owner sets them, such as by npm pkg set license=MIT`,
  )
  process.exitCode = 1
}
