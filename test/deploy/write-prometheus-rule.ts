import { writeFileSync } from 'node:fs'
import { parse, stringify } from 'yaml'
import { readText, ROOT } from './repository.ts'

/** Writes the alerts as a PrometheusRule of the Prometheus Operator: `node test/deploy/write-prometheus-rule.ts`. */
if (import.meta.main) writeFileSync(`${ROOT}/deploy/kubernetes/monitoring/prometheusrule.yaml`, prometheusRule())

export function prometheusRule(): string {
  const rule = {
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'PrometheusRule',
    metadata: { name: 'sluice', labels: { 'app.kubernetes.io/name': 'sluice' } },
    spec: parse(readText('deploy/prometheus/alerts.yml')) as object,
  }
  return `# Made of deploy/prometheus/alerts.yml by test/deploy/write-prometheus-rule.ts.\n${stringify(rule, { lineWidth: 120 })}`
}
