import { spawnSync } from 'node:child_process'

/** What promtool finds wrong with the names and types of our metrics, in the text format; nothing if all is well. */
export function lintMetrics(text: string): string {
  const ours = text.split('\n').filter((line) => /^(?:# (?:HELP|TYPE) )?sluice_/.test(line))
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
    input: `${ours.join('\n')}\n`,
    encoding: 'utf8',
  })
  return status === 0 ? `${stdout}${stderr}` : `${stdout}${stderr}(promtool ended with ${status})`
}
