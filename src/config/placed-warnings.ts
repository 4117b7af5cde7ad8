import type { FoundConfig } from './find.ts'
import { byPosition, locate } from './problem.ts'
import { textWarnings, warningsIn, warningText } from './warnings.ts'
import { readYaml } from './yaml.ts'

/** The warnings of a configuration, written as its errors are: `sluice.yaml:20:5: warning: upstreams.x.url is …`, in the order of the file. */
export function placedWarnings({ config, source, text }: FoundConfig): string[] {
  const warnings = warningsIn(config)
  if (text === undefined) return warnings.map((warning) => `${source}: warning: ${warningText(warning)}`)
  const read = readYaml(text)
  const placed = [...textWarnings(read), ...warnings.map((warning) => locate(warning, read.document, read.lines))]
  return placed.toSorted(byPosition).map((warning) => {
    return `${source}:${warning.line}:${warning.column}: warning: ${warningText(warning)}`
  })
}
