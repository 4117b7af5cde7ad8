import { readdirSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parseAllDocuments } from 'yaml'
import { parseConfig } from '../../src/config/load.ts'
import { imageEnvironment, imageInstructions } from './dockerfile.ts'
import { readText, ROOT } from './repository.ts'

const MANIFESTS = 'deploy/kubernetes/base'

interface Manifest {
  readonly kind: string
  readonly metadata: { readonly name: string }
  readonly spec: Record<string, unknown>
  readonly data: Record<string, string>
}

interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string }
}

interface PodSpec {
  readonly automountServiceAccountToken: boolean
  readonly terminationGracePeriodSeconds: number
  readonly securityContext: Record<string, unknown>
  readonly containers: readonly {
    readonly image: string
    readonly ports: readonly { readonly name: string; readonly containerPort: number }[]
    readonly envFrom: readonly { readonly secretRef: { readonly name: string } }[]
    readonly volumeMounts: readonly { readonly mountPath: string; readonly readOnly: boolean }[]
    readonly readinessProbe: Probe
    readonly livenessProbe: Probe
    readonly startupProbe: Probe
    readonly resources: { readonly requests: { readonly memory: string } }
    readonly lifecycle: { readonly preStop: { readonly sleep: { readonly seconds: number } } }
    readonly securityContext: Record<string, unknown>
  }[]
  readonly volumes: readonly { readonly name: string; readonly configMap: { readonly name: string } }[]
}

const manifests = readdirSync(`${ROOT}/${MANIFESTS}`)
  .filter((file) => file !== 'kustomization.yaml')
  .flatMap((file) =>
    parseAllDocuments(readText(`${MANIFESTS}/${file}`)).map((document) => {
      expect(document.errors).toEqual([])
      return document.toJS() as Manifest
    }),
  )
const ofKind = (kind: string): Manifest[] => manifests.filter((manifest) => manifest.kind === kind)
const deployment = ofKind('Deployment')[0]!
const pod = deployment.spec['template'] as { metadata: { labels: object }; spec: PodSpec }
const [container] = pod.spec.containers
const [configMap] = ofKind('ConfigMap')
/** Those that the command in the comment creates. */
const secretKeys = [...readText(`${MANIFESTS}/deployment.yaml`).matchAll(/--from-literal=(\w+)=/g)].map(
  ([, key]) => key!,
)
const config = parseConfig(configMap?.data['sluice.yaml'] ?? '', {
  env: Object.fromEntries(secretKeys.map((key) => [key, key === 'REDIS_URL' ? 'redis://redis:6379' : key])),
})

describe('the Kubernetes manifests', () => {
  it('are a deployment with its services, configuration, scaling, network and disruption rules, and no secret', () => {
    expect(manifests.map(({ kind }) => kind).toSorted()).toEqual([
      'ConfigMap',
      'Deployment',
      'HorizontalPodAutoscaler',
      'NetworkPolicy',
      'PodDisruptionBudget',
      'Service',
      'Service',
    ])
  })

  it('have a configuration that is valid with exactly the secrets that the comment creates', () => {
    const referred = [...(configMap?.data['sluice.yaml'] ?? '').matchAll(/\$\{env:(\w+)\}/g)].map(([, key]) => key)
    expect(new Set(referred)).toEqual(new Set(secretKeys))
    expect(container?.envFrom).toEqual([{ secretRef: { name: 'sluice' } }])
    expect(config.store.kind).toBe('redis')
  })

  it('mount it where the image looks for it', () => {
    expect(pod.spec.volumes[0]?.configMap.name).toBe(configMap?.metadata.name)
    const [mount] = container?.volumeMounts ?? []
    expect(mount?.readOnly).toBe(true)
    expect(`${mount?.mountPath}/${Object.keys(configMap?.data ?? {})[0]}`).toBe(imageEnvironment()['SLUICE_CONFIG'])
  })

  it('name the ports on which the gateway listens', () => {
    expect(container?.ports).toEqual([
      { name: 'http', containerPort: config.server.port },
      { name: 'admin', containerPort: config.admin.port },
    ])
    for (const { spec } of ofKind('Service')) {
      for (const { targetPort } of spec['ports'] as { targetPort: string }[]) {
        expect(container?.ports.map(({ name }) => name)).toContain(targetPort)
      }
    }
  })

  it('probe the admin port: readiness for traffic, health for life', () => {
    expect(container?.readinessProbe.httpGet).toEqual({ path: '/readyz', port: 'admin' })
    expect(container?.livenessProbe.httpGet).toEqual({ path: '/healthz', port: 'admin' })
    expect(container?.startupProbe.httpGet).toEqual({ path: '/healthz', port: 'admin' })
  })

  it('leave more time to stop than the gateway takes to drain', () => {
    const preStopMs = (container?.lifecycle.preStop.sleep.seconds ?? 0) * 1_000
    // What hangs is waited for once, and once more.
    expect(pod.spec.terminationGracePeriodSeconds * 1_000).toBeGreaterThan(preStopMs + 2 * config.server.drain)
  })

  it('let nobody but monitoring reach the admin port, and want a token for metrics too', () => {
    expect(config.admin.metricsToken).toBeDefined()
    const ingress = ofKind('NetworkPolicy')[0]?.spec['ingress'] as { from: object[]; ports: { port: string }[] }[]
    const [forAdmin, ...others] = ingress.filter(({ ports }) => ports.some(({ port }) => port !== 'http'))
    expect(forAdmin).toEqual({
      from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }],
      ports: [{ port: 'admin', protocol: 'TCP' }],
    })
    expect(others).toEqual([])
  })

  it('run as the image’s user, who can gain no privilege and write nowhere', () => {
    expect(pod.spec.automountServiceAccountToken).toBe(false)
    const { runAsNonRoot, runAsUser, runAsGroup } = pod.spec.securityContext
    expect({ runAsNonRoot, user: `${String(runAsUser)}:${String(runAsGroup)}` }).toEqual({
      runAsNonRoot: true,
      user: imageInstructions('USER')[0],
    })
    // Or a volume for store.dir would be root's.
    expect(pod.spec.securityContext).toMatchObject({ fsGroup: 1_000, fsGroupChangePolicy: 'OnRootMismatch' })
    expect(container?.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
  })

  it('ask for the memory that the image was measured to take, which runs from source', () => {
    const [, megabytes = ''] =
      /memory 40 s after 200,000 calls *\| (?:\d+ to )?(\d+) MB from source/.exec(readText('docs/capacity.md')) ?? []
    expect(Number(megabytes)).toBeGreaterThan(100)
    const [, mebibytes = ''] = /^(\d+)Mi$/.exec(container?.resources.requests.memory ?? '') ?? []
    expect(Number(mebibytes) * 1_048_576).toBeGreaterThan(Number(megabytes) * 1_000_000)
  })

  it('run the image of this release', () => {
    const { version } = JSON.parse(readText('package.json')) as { version: string }
    expect(container?.image).toBe(`sluice:${version}`)
  })

  it('select these pods and no others', () => {
    const labels = { 'app.kubernetes.io/name': 'sluice' }
    expect(pod.metadata.labels).toEqual(labels)
    expect(deployment.spec['selector']).toEqual({ matchLabels: labels })
    for (const { spec } of ofKind('Service')) expect(spec['selector']).toEqual(labels)
    for (const { spec } of ofKind('PodDisruptionBudget')) expect(spec['selector']).toEqual({ matchLabels: labels })
    for (const { spec } of ofKind('NetworkPolicy')) expect(spec['podSelector']).toEqual({ matchLabels: labels })
  })

  it('keep at least one pod while nodes are drained', () => {
    // The autoscaler says how many: a number in the deployment would undo that at every change.
    expect(deployment.spec).not.toHaveProperty('replicas')
    expect(ofKind('HorizontalPodAutoscaler')[0]?.spec['minReplicas']).toBeGreaterThan(1)
    expect(ofKind('PodDisruptionBudget')[0]?.spec).toMatchObject({ maxUnavailable: 1 })
  })
})
