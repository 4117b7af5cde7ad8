import { hasProgram, installWithApt } from './packages.ts'

/**
 * Whether `prometheus` and `promtool` can be run: from PATH, else installed with apt when we are root. Says what to do if
 * they can't.
 */
export function hasPrometheus(): boolean {
  if (isInstalled() || (installWithApt('prometheus') && isInstalled())) return true
  console.warn('tests against a real Prometheus are skipped: there are no prometheus and promtool on PATH')
  return false
}

function isInstalled(): boolean {
  return hasProgram('prometheus') && hasProgram('promtool')
}
