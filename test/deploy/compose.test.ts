import { existsSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { hashKey } from '../../src/clients/keys.ts'
import { parseConfig } from '../../src/config/load.ts'
import { parseDuration } from '../../src/schema/units.ts'
import { demoKey, environmentOf, readCompose, service } from './compose.ts'
import { imageEnvironment, imageInstructions } from './dockerfile.ts'
import { hasProgram } from '../support/packages.ts'
import { run } from './process.ts'
import { BOARDS, readBoard } from './boards.ts'
import { readText, ROOT } from './repository.ts'

const { services, volumes } = readCompose()
const everyService = Object.entries(services)
/** The image of the Dockerfile, which has a health check. */
const OWN = 'sluice:local'
const config = parseConfig(readText('deploy/compose/sluice.yaml'), { env: environmentOf('gateway') })

interface Mount {
  readonly source: string
  readonly target: string
  readonly mode: string | undefined
}

function mountsOf(name: string): Mount[] {
  return (service(name).volumes ?? []).map((volume) => {
    const [source = '', target = '', mode] = volume.split(':')
    return { source, target, mode }
  })
}

describe('the Compose file', () => {
  it('starts gateway, sandbox, Redis, Prometheus and Grafana', () => {
    expect(Object.keys(services).toSorted()).toEqual(['gateway', 'grafana', 'prometheus', 'redis', 'sandbox'])
  })

  it('is a file of the Compose specification that older programs read, too', () => {
    // Version 1 knows no name, and takes a file with one for wrong.
    expect(parse(readText('docker-compose.yml'))).not.toHaveProperty('name')
  })

  it.skipIf(!hasProgram('docker-compose'))('is understood by docker-compose where there is one', () => {
    const { code, output } = run(['docker-compose', '--file', `${ROOT}/docker-compose.yml`, 'config', '--quiet'])
    expect(code, output).toBe(0)
  })

  it.each(everyService)('runs a pinned image as %s, or one that is built here', (_, { image }) => {
    expect(image).not.toMatch(/:latest$/)
    if (image !== OWN) expect(image).toMatch(/^[a-z]+(?:\/[a-z]+)?:v?\d[\w.-]*$/)
  })

  it('never takes the gateway from a registry, and builds it once: of two builds at once one fails', () => {
    const own = everyService.filter(([, { image }]) => image === OWN)
    expect(own.map(([name]) => name)).toEqual(['gateway', 'sandbox'])
    expect(own.map(([, { pull_policy }]) => pull_policy)).toEqual(['never', 'build'])
    expect(own.map(([, { build }]) => build)).toEqual([undefined, '.'])
    expect(existsSync(`${ROOT}/Dockerfile`)).toBe(true)
    // Programs that build an image when its service starts have it then.
    expect(service('gateway').depends_on).toHaveProperty('sandbox')
  })

  it.each(everyService)('gives %s no privileges and nothing to write to but what it needs', (_, options) => {
    expect(options).toMatchObject({
      cap_drop: ['ALL'],
      security_opt: ['no-new-privileges:true'],
      read_only: true,
      restart: 'unless-stopped',
    })
    for (const risky of ['privileged', 'cap_add', 'devices', 'network_mode', 'pid', 'ipc', 'userns_mode']) {
      expect(options).not.toHaveProperty(risky)
    }
  })

  it.each(everyService)('publishes the ports of %s on 127.0.0.1 only', (_, { ports = [] }) => {
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/)
  })

  it('publishes no port twice, and not that of Redis', () => {
    const published = everyService.flatMap(([, { ports = [] }]) => ports.map((port) => port.split(':')[1]))
    expect(new Set(published).size).toBe(published.length)
    expect(service('redis').ports).toBeUndefined()
  })

  it.each(everyService)('mounts into %s only files that exist, read-only, and volumes that are declared', (name) => {
    for (const { source, target, mode } of mountsOf(name)) {
      expect(target).toMatch(/^\//)
      if (source.startsWith('./')) {
        expect(existsSync(`${ROOT}/${source}`), source).toBe(true)
        expect(mode).toBe('ro')
      } else expect(volumes).toHaveProperty(source)
    }
  })

  it.each(everyService)('starts %s after what it needs is healthy', (_, { depends_on = {} }) => {
    for (const [name, { condition }] of Object.entries(depends_on)) {
      expect(condition).toBe('service_healthy')
      const { image, healthcheck } = service(name)
      expect(healthcheck !== undefined || image === OWN, `${name} has a health check`).toBe(true)
    }
  })

  it('leaves the gateway more time to stop than it takes to drain', () => {
    // What hangs is waited for once, and once more.
    expect(parseDuration(service('gateway').stop_grace_period ?? '')).toBeGreaterThan(2 * config.server.drain)
  })

  it('publishes the ports on which its configuration makes the gateway listen', () => {
    const ports = [config.server.port, config.admin.port]
    expect(service('gateway').ports).toEqual(ports.map((port) => `127.0.0.1:${port}:${port}`))
    expect(imageInstructions('EXPOSE')).toEqual([ports.join(' ')])
  })

  it('mounts the configuration where the image looks for it', () => {
    expect(mountsOf('gateway')).toContainEqual({
      source: './deploy/compose/sluice.yaml',
      target: imageEnvironment()['SLUICE_CONFIG'],
      mode: 'ro',
    })
  })
})

describe('the configuration of the demo', () => {
  it('has a key in clear text that is the one of its only client', () => {
    expect(Object.keys(config.clients ?? {})).toEqual(['demo'])
    expect(config.clients?.['demo']?.keys).toEqual([hashKey(demoKey())])
    expect(demoKey()).toMatch(/demo.*sandbox/i)
  })

  it('sends that client nowhere but to the sandbox', () => {
    expect(Object.values(config.upstreams).map(({ url }) => url)).toEqual(['http://sandbox:8090'])
    expect(service('sandbox').command).toEqual(
      'node bin/sluice.cjs sandbox --host 0.0.0.0 --port 8090 --control-port 8091'.split(' '),
    )
  })

  it('counts in the Redis that is started with it', () => {
    expect(config.store.kind).toBe('redis')
    expect(config.store.url?.reveal()).toBe('redis://redis:6379')
    expect(services).toHaveProperty('redis')
  })
})

describe('Prometheus and Grafana', () => {
  const prometheus = parse(readText('deploy/prometheus/prometheus.yml')) as {
    global: { scrape_interval: string }
    rule_files: string[]
    scrape_configs: { job_name: string; static_configs: { targets: string[] }[] }[]
  }
  const [datasource] = (
    parse(readText('deploy/grafana/provisioning/datasources/prometheus.yaml')) as {
      datasources: { uid: string; url: string; jsonData: Record<string, unknown> }[]
    }
  ).datasources

  it('scrapes the admin port of the gateway, and loads rules that exist', () => {
    expect(prometheus.scrape_configs).toEqual([
      { job_name: 'sluice', static_configs: [{ targets: [`gateway:${config.admin.port}`] }] },
    ])
    for (const file of prometheus.rule_files) expect(existsSync(`${ROOT}/deploy/prometheus/${file}`)).toBe(true)
    expect(mountsOf('prometheus')).toContainEqual({
      source: './deploy/prometheus',
      target: '/etc/prometheus',
      mode: 'ro',
    })
    expect(service('prometheus').command).toContain('--config.file=/etc/prometheus/prometheus.yml')
  })

  it('stores exemplars', () => {
    expect(service('prometheus').command).toContain('--enable-feature=exemplar-storage')
  })

  it('gives Grafana that Prometheus, with the interval at which it scrapes', () => {
    expect(datasource).toMatchObject({
      url: 'http://prometheus:9090',
      jsonData: { timeInterval: prometheus.global.scrape_interval },
    })
  })

  it('puts the boards where Grafana is told to look for it', () => {
    const { providers } = parse(readText('deploy/grafana/provisioning/dashboards/sluice.yaml')) as {
      providers: { options: { path: string } }[]
    }
    const folder = providers[0]?.options.path
    expect(mountsOf('grafana')).toEqual([
      {
        source: './deploy/grafana/provisioning/datasources',
        target: '/etc/grafana/provisioning/datasources',
        mode: 'ro',
      },
      {
        source: './deploy/grafana/provisioning/dashboards',
        target: '/etc/grafana/provisioning/dashboards',
        mode: 'ro',
      },
      ...BOARDS.map((name) => ({
        source: `./deploy/grafana/${name}.json`,
        target: `${folder}/${name}.json`,
        mode: 'ro',
      })),
    ])
    expect(environmentOf('grafana')['GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH']).toBe(`${folder}/on-call.json`)
  })

  it('lets whoever opens Grafana look, and nobody log in', () => {
    expect(environmentOf('grafana')).toMatchObject({
      GF_AUTH_ANONYMOUS_ENABLED: 'true',
      GF_AUTH_ANONYMOUS_ORG_ROLE: 'Viewer',
      GF_AUTH_BASIC_ENABLED: 'false',
      GF_AUTH_DISABLE_LOGIN_FORM: 'true',
      GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION: 'true',
    })
  })

  it('leads from an exemplar to the story of its call, on the admin port of Compose', () => {
    const { templating } = readBoard('on-call')
    expect(datasource?.jsonData['exemplarTraceIdDestinations']).toEqual([
      expect.objectContaining({
        name: 'correlation_id',
        url: 'http://127.0.0.1:9090/requests/$${__value.raw:percentencode}',
      }),
    ])
    expect(templating.list).toContainEqual(expect.objectContaining({ name: 'call', type: 'textbox' }))
  })
})
