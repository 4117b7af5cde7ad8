import { spawnSync } from 'node:child_process'

/** What promtool finds wrong with the names and types of our metrics; nothing if all is well. */
export function lintMetrics(openMetrics: string): string {
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
    input: inTextFormat(openMetrics),
    encoding: 'utf8',
  })
  return status === 0 ? `${stdout}${stderr}` : `${stdout}${stderr}(promtool ended with ${status})`
}

/** promtool's linter knows only the format before OpenMetrics: there counters are named as their samples. */
function inTextFormat(openMetrics: string): string {
  const ours = openMetrics.split('\n').filter((line) => /^(?:# (?:HELP|TYPE) )?sluice_/.test(line))
  const counters = new Set(ours.flatMap((line) => /^# TYPE (\w+) counter$/.exec(line)?.[1] ?? []))
  return ours
    .map((line) => line.replace(/ # \{.*$/, ''))
    .map((line) =>
      line.replace(/^# (HELP|TYPE) (\w+)/, (all, _, name: string) => (counters.has(name) ? `${all}_total` : all)),
    )
    .join('\n')
    .concat('\n')
}
