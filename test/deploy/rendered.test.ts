import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PodMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor'
import { PrometheusRule } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule'
import { Deployment } from 'kubernetes-models/apps/v1/Deployment'
import { HorizontalPodAutoscaler } from 'kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler'
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy'
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget'
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap'
import { Service } from 'kubernetes-models/v1/Service'
import { beforeAll, describe, expect, it } from 'vitest'
import { parse, parseAllDocuments, stringify } from 'yaml'
import { parseConfig } from '../../src/config/load.ts'
import { newFolder } from '../support/gateway.ts'
import { hasKubernetesTools, kubernetesTool } from '../support/kubernetes-tools.ts'
import { builtBoards } from '../../deploy/grafana/boards/build.ts'
import { BOARDS } from './boards.ts'
import { readText, ROOT } from './repository.ts'
import { prometheusRule } from './write-prometheus-rule.ts'

/** What the schemas that Kubernetes and the Prometheus Operator publish know of the kinds that we use. */
const MODELS = {
  ConfigMap,
  Deployment,
  HorizontalPodAutoscaler,
  NetworkPolicy,
  PodDisruptionBudget,
  PodMonitor,
  PrometheusRule,
  Service,
} as const

interface Manifest {
  readonly kind: keyof typeof MODELS
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels?: Record<string, string> }
  readonly spec: any // eslint-disable-line typescript/no-explicit-any -- tests look into many shapes
  readonly data: Record<string, string>
}

interface EgressRule {
  readonly to: readonly { readonly podSelector?: { readonly matchLabels: Record<string, string> } }[]
  readonly ports: readonly { readonly port: number }[]
}

function manifestsIn(text: string): Manifest[] {
  // As Helm and Kubernetes read it: there `no` is no text.
  return parseAllDocuments(text, { version: '1.1' })
    .map((document) => {
      expect(document.errors).toEqual([])
      return document.toJS() as Manifest | null
    })
    .filter((manifest) => manifest !== null)
}

function expectValid(manifests: readonly Manifest[]): void {
  for (const manifest of manifests) {
    const unread = new Set<string>()
    const model = new MODELS[manifest.kind]()
    // Its constructor would copy, and so read, all of them.
    Object.defineProperties(model, Object.getOwnPropertyDescriptors(watched(manifest, '', unread)))
    model.validate()
    // A field that a cluster does not know is refused by kubectl, and dropped by others.
    expect([...unread], `fields that no ${manifest.kind} has`).toEqual([])
  }
}

/** The same value. `unread` has the paths of the fields that nobody has read: these validators read all that they know. */
function watched<T extends object>(value: T, path: string, unread: Set<string>): T {
  const copy = (Array.isArray(value) ? [] : {}) as T
  for (const [name, field] of Object.entries(value)) {
    const at = `${path}/${name}`
    unread.add(at)
    const shown: unknown = typeof field === 'object' && field !== null ? watched(field, at, unread) : field
    Object.defineProperty(copy, name, {
      enumerable: true,
      get: () => {
        unread.delete(at)
        return shown
      },
    })
  }
  return copy
}

const kindsOf = (manifests: readonly Manifest[]): string[] => manifests.map(({ kind }) => kind).toSorted()
const BASE = ['ConfigMap', 'Deployment', 'HorizontalPodAutoscaler', 'NetworkPolicy', 'PodDisruptionBudget', 'Service']
/** With all that is for monitoring: a ConfigMap for each board, too. */
const MONITORED = [...BASE, ...BOARDS.map(() => 'ConfigMap'), 'PodMonitor', 'PrometheusRule', 'Service'].toSorted()

/** What the ConfigMaps for Grafana hold, by the names of the files. */
function boardsIn(manifests: readonly Manifest[]): Record<string, string> {
  const found = manifests.filter(({ metadata }) => metadata.labels?.['grafana_dashboard'] === '1')
  return Object.assign({}, ...found.map(({ data }) => data)) as Record<string, string>
}

const ENVIRONMENT = {
  SLUICE_ADMIN_TOKEN: 'a',
  SLUICE_METRICS_TOKEN: 'm',
  REDIS_URL: 'redis://redis:6379',
  HARNESS_ACCOUNT_ID: 'i',
  HARNESS_API_KEY: 'k',
}

it('the PrometheusRule has the alerts of Prometheus as they are now', () => {
  expect(readText('deploy/kubernetes/monitoring/prometheusrule.yaml')).toBe(prometheusRule())
})

describe.skipIf(!hasKubernetesTools)('what kubectl makes of the Kustomize files', { timeout: 240_000 }, () => {
  const render = (folder: string): Manifest[] =>
    manifestsIn(kubernetesTool('kubectl', ['kustomize', `${ROOT}/deploy/kubernetes/${folder}`]))

  it('is valid by the published schemas, as the base is', () => {
    const manifests = render('base')
    expectValid(manifests)
    expect(kindsOf(manifests)).toEqual([...BASE, 'Service'])
  })

  it('is valid as the overlay for production, which adds monitoring and changes image, namespace and number', () => {
    const manifests = render('overlays/production')
    expectValid(manifests)
    expect(kindsOf(manifests)).toEqual(MONITORED)
    expect(boardsIn(manifests)).toEqual(builtBoards())
    for (const { metadata } of manifests) expect(metadata.namespace).toBe('sluice')
    const of = (kind: string) => manifests.find((manifest) => manifest.kind === kind)!.spec
    expect(of('Deployment').template.spec.containers[0].image).toMatch(/^registry\.example\//)
    expect(of('HorizontalPodAutoscaler').minReplicas).toBe(3)
    // A node that takes no pods, such as one that is drained, would count as one without gateways: no other could have two.
    const [spread] = of('Deployment').template.spec.topologySpreadConstraints
    expect(spread).toMatchObject({ whenUnsatisfiable: 'DoNotSchedule', nodeTaintsPolicy: 'Honor' })
    expect(of('PodMonitor').scrapeProtocols).toEqual(['OpenMetricsText1.0.0'])
  })

  it('would be refused by these schemas if a field had the wrong type', () => {
    const deployment = render('base').find(({ kind }) => kind === 'Deployment')
    const spec = { ...deployment!.spec, template: { spec: { containers: [{ name: 7 }] } } }
    expect(() => expectValid([{ ...deployment!, spec }])).toThrow(/name/)
  })
})

describe.skipIf(!hasKubernetesTools)('the Helm chart', { timeout: 240_000 }, () => {
  const chart = `${ROOT}/deploy/helm/sluice`
  const render = (...settings: string[]): Manifest[] =>
    manifestsIn(
      kubernetesTool('helm', ['template', 'egress', chart, ...settings.flatMap((setting) => ['--set-json', setting])]),
    )
  const everything = [
    'monitoring={"podMonitor":true,"prometheusRule":true,"boards":true,"labels":{"release":"prometheus"}}',
  ]
  let manifests: Manifest[]
  beforeAll(() => {
    manifests = render(...everything)
  })
  const of = (kind: string) => manifests.find((manifest) => manifest.kind === kind)!

  it('has nothing that helm lint objects to', () => {
    expect(kubernetesTool('helm', ['lint', '--strict', chart])).toContain('1 chart(s) linted, 0 chart(s) failed')
  })

  it('is valid by the published schemas', () => {
    expectValid(manifests)
    expect(kindsOf(manifests)).toEqual(MONITORED)
  })

  it('runs the pods as the Kustomize base does', () => {
    const base = parse(readText('deploy/kubernetes/base/deployment.yaml')) as Manifest
    const { labelSelector: _, ...spread } = base.spec.template.spec.topologySpreadConstraints[0]
    const pod = of('Deployment').spec.template.spec
    expect(pod).toMatchObject({
      ...base.spec.template.spec,
      containers: base.spec.template.spec.containers,
      volumes: [{ configMap: { name: 'egress-sluice' } }],
      topologySpreadConstraints: [spread],
    })
    const { ingress, egress } = of('NetworkPolicy').spec
    const policy = parse(readText('deploy/kubernetes/base/networkpolicy.yaml')) as Manifest
    expect({ ingress, egress }).toEqual({ ingress: policy.spec.ingress, egress: policy.spec.egress })
  })

  it('has a configuration that the gateway takes, the alerts of Prometheus, and the boards of Grafana', () => {
    const config = parseConfig(of('ConfigMap').data['sluice.yaml']!, { env: ENVIRONMENT })
    const { spec } = of('Deployment').spec.template
    expect(spec.terminationGracePeriodSeconds * 1_000).toBeGreaterThan(5_000 + 2 * config.server.drain)
    expect(of('PrometheusRule').spec).toEqual(parse(readText('deploy/prometheus/alerts.yml')))
    const boards = Object.entries(boardsIn(manifests)).map(([file, text]) => [file, JSON.parse(text)])
    const built = Object.entries(builtBoards()).map(([file, text]) => [file, JSON.parse(text)])
    expect(Object.fromEntries(boards)).toEqual(Object.fromEntries(built))
    expect(of('PodMonitor').metadata.labels).toMatchObject({ release: 'prometheus' })
    expect(of('PodMonitor').spec.scrapeProtocols).toEqual(['OpenMetricsText1.0.0'])
  })

  it('leads from each alert to where the runbook is served', () => {
    const page = 'https://wiki.example/sluice-runbook'
    const rule = render(`monitoring={"prometheusRule":true,"runbook":"${page}"}`).find(
      ({ kind }) => kind === 'PrometheusRule',
    )!
    const text = readText('deploy/prometheus/alerts.yml').replaceAll(
      'runbook_url: docs/runbook.md',
      `runbook_url: ${page}`,
    )
    expect(rule.spec).toEqual(parse(text))
  })

  it('takes volumes for secrets and for the embedded store, and leaves out what is set to null', () => {
    const values = {
      config: {
        defaultUpstream: null,
        store: { kind: 'memory', url: null, dir: '/var/lib/sluice' },
        upstreams: { harness: null, tickets: { url: 'https://api.tickets.example', accounts: { main: {} } } },
        clients: { 'deploy-bot': null, 'my-tool': { keys: [`sha256:${'0'.repeat(63)}2`] } },
      },
      autoscaling: { enabled: false },
      replicas: 1,
      extraVolumes: [{ name: 'store', persistentVolumeClaim: { claimName: 'sluice' } }],
      extraVolumeMounts: [{ name: 'store', mountPath: '/var/lib/sluice' }],
    }
    const file = join(newFolder(), 'values.yaml')
    writeFileSync(file, stringify(values))
    const own = manifestsIn(kubernetesTool('helm', ['template', 'egress', chart, '--values', file]))
    expectValid(own)
    const find = (kind: string) => own.find((manifest) => manifest.kind === kind)!
    const config = parseConfig(find('ConfigMap').data['sluice.yaml']!, { env: ENVIRONMENT })
    expect(Object.keys(config.upstreams)).toEqual(['tickets'])
    expect(Object.keys(config.clients ?? {})).toEqual(['my-tool'])
    const { volumes, containers } = find('Deployment').spec.template.spec
    expect(volumes).toContainEqual(values.extraVolumes[0])
    expect(containers[0].volumeMounts).toContainEqual(values.extraVolumeMounts[0])
    // In a container both have the process id 1, by which neither sees that the other has the folder.
    expect(find('Deployment').spec.strategy).toEqual({ type: 'Recreate' })
  })

  it.each([
    ['the autoscaler', ['config={"store":{"kind":"memory","url":null}}']],
    ['two gateways', ['config={"store":null}', 'autoscaling={"enabled":false}', 'replicas=2']],
  ])('refuses %s with the embedded store, where each gateway would grant all quotas', (_, settings) => {
    expect(() => render(...settings)).toThrow(
      /with store\.kind memory .* set autoscaling\.enabled: false and replicas: 1/,
    )
  })

  it('has no preStop where that is to take no time, since Kubernetes before 1.33 refuses a sleep of 0 s', () => {
    const [container] = render('preStopSeconds=0').find(({ kind }) => kind === 'Deployment')!.spec.template.spec
      .containers
    expect(container).not.toHaveProperty('lifecycle')
  })

  it('lets the scrape send the token that the configuration wants', () => {
    const credentials = (token: string) =>
      render(...everything, `config={"admin":{"metricsToken":${token}}}`).find(({ kind }) => kind === 'PodMonitor')!
        .spec.podMetricsEndpoints[0].authorization?.credentials
    expect(credentials('"${env:SCRAPE_TOKEN}"')).toEqual({ name: 'sluice', key: 'SCRAPE_TOKEN' })
    expect(credentials('"${env:ON}"')).toEqual({ name: 'sluice', key: 'ON' })
    expect(credentials('"${file:/run/secrets/metrics}"')).toEqual({ name: 'sluice', key: 'SLUICE_METRICS_TOKEN' })
    expect(credentials('null')).toBeUndefined()
  })

  it('keeps names that YAML would take for something else', () => {
    const values = ['secretName="123"', 'networkPolicy={"monitoringNamespace":"on"}', 'monitoring={"podMonitor":true}']
    const options = values.flatMap((value) => ['--set-json', value])
    const named = manifestsIn(kubernetesTool('helm', ['template', 'no', chart, ...options]))
    expectValid(named)
    expect(kindsOf(named)).toContain('PodMonitor')
    for (const { metadata } of named) expect(metadata.labels).toMatchObject({ 'app.kubernetes.io/instance': 'no' })
  })

  it('can be packaged with a version that names its build', () => {
    const folder = newFolder()
    const version = '0.1.0+build.7'
    kubernetesTool('helm', ['package', chart, '--version', version, '--app-version', version, '--destination', folder])
    const packaged = manifestsIn(kubernetesTool('helm', ['template', 'egress', join(folder, `sluice-${version}.tgz`)]))
    // A label can hold no plus sign.
    for (const { metadata } of packaged) {
      expect(metadata.labels).toMatchObject({
        'helm.sh/chart': 'sluice-0.1.0_build.7',
        'app.kubernetes.io/version': '0.1.0_build.7',
      })
    }
  })

  it.each([
    ['{ app: valkey }', [{ app: 'valkey' }]],
    ['{}', []],
  ])('lets calls go to the pods of Redis that have the labels %s, and to no others', (labels, expected) => {
    const policy = render(`networkPolicy={"redisPodLabels":${JSON.stringify(parse(labels))}}`)
    const { egress } = policy.find(({ kind }) => kind === 'NetworkPolicy')!.spec as { egress: EgressRule[] }
    const pods = egress.filter(({ ports }) => ports.some(({ port }) => port === 6379))
    expect(pods.flatMap(({ to }) => to.map(({ podSelector }) => podSelector?.matchLabels))).toEqual(expected)
  })

  it('lets calls go to the sentinels of Redis, by the ports that the configuration names', () => {
    const store = { url: null, sentinels: ['a:26379', '[fd00::1]:26379', 'c:26380', '${env:SENTINEL}'], master: 'm' }
    const policy = render(`config=${JSON.stringify({ store })}`).find(({ kind }) => kind === 'NetworkPolicy')!
    const rules = policy.spec.egress as EgressRule[]
    const toRedis = rules.find(({ to }) =>
      to.some(({ podSelector }) => podSelector?.matchLabels['k8s-app'] === undefined && podSelector),
    )
    expect(toRedis?.ports.map(({ port }) => port)).toEqual([6379, 26379, 26380])
  })

  it('lets calls go to public addresses of IPv6, too', () => {
    const blocks = (of('NetworkPolicy').spec.egress as { to: { ipBlock?: { cidr: string } }[] }[]).flatMap(
      ({ to }) => to,
    )
    expect(blocks.flatMap(({ ipBlock }) => ipBlock?.cidr ?? [])).toEqual(['0.0.0.0/0', '::/0'])
  })

  it.each([
    ['{"host":"0.0.0.0","ca":"/ca/sluice"}', 3128],
    ['{"host":"0.0.0.0","ca":"/ca/sluice","port":8888}', 8888],
  ])('has a port for the forward proxy where the configuration has %s', (forwardProxy, port) => {
    const own = render(`config={"forwardProxy":${forwardProxy}}`)
    expectValid(own)
    const find = (kind: string) => own.find((manifest) => manifest.kind === kind)!.spec
    expect(find('Deployment').template.spec.containers[0].ports).toContainEqual({ name: 'proxy', containerPort: port })
    expect(find('Service').ports).toContainEqual({ name: 'proxy', port: 3128, targetPort: 'proxy' })
    expect(find('NetworkPolicy').ingress[0].ports).toContainEqual({ port: 'proxy', protocol: 'TCP' })
  })

  it('can be told to do without what a cluster does not have', () => {
    const fewer = render('autoscaling={"enabled":false}', 'replicas=4', 'networkPolicy={"enabled":false}')
    expectValid(fewer)
    expect(kindsOf(fewer)).toEqual(['ConfigMap', 'Deployment', 'PodDisruptionBudget', 'Service', 'Service'])
    expect(fewer.find(({ kind }) => kind === 'Deployment')!.spec.replicas).toBe(4)
  })

  it.each([
    ['a value that it does not know', 'replica=3', /replica/],
    ['no gateway at all', 'replicas=0', /replicas/],
    ['an amount of memory that is none', 'resources={"limits":{"memory":"much"}}', /memory/],
    ['a port that only the gateway would know', 'config={"server":{"port":"${env:PORT}"}}', /config\.server\.port: /],
    ['less time to stop than a drain takes', 'config={"server":{"drain":"2m"}}', /takes 125 s to stop.*is 60$/m],
    ['a forward proxy that no pod could reach', 'config={"forwardProxy":{}}', /forwardProxy in a pod needs host/],
    ['one whose CA is each pod’s own', 'config={"forwardProxy":{"host":"0.0.0.0"}}', /forwardProxy in a pod needs/],
    ['the same with a delay', 'config={"server":{"shutdownDelay":"34500ms"}}', /takes 60 s to stop.*is 60$/m],
  ])('refuses %s', (_, setting, message) => {
    expect(() => render(setting)).toThrow(message)
  })
})
