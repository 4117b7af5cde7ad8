import { existsSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { checkConfig, parseConfig } from '../src/config/load.ts'
import { harness } from '../src/config/presets/harness.ts'
import { ConfigSchema } from '../src/schema/schema.ts'
import { parseDuration } from '../src/schema/units.ts'
import { warningsOf } from '../src/config/warnings.ts'
import { ADVICE_OF, FAILURES } from '../src/gateway/failure.ts'
import { Metrics } from '../src/observe/metrics.ts'
import { registerProcessInfo } from '../src/observe/process-info.ts'
import { ReloadCounts } from '../src/observe/reload-counts.ts'
import { WebhookCounts } from '../src/webhooks/counts.ts'
import { adapt, readText } from './deploy/repository.ts'
import { newFolder } from './support/gateway.ts'
import { runCommand } from './support/command-line.ts'
import { README, README_FILES, readmeBlock, readmeTable } from './support/readme.ts'

describe('the README’s table of refusals', () => {
  it('has every kind once, with its status and its code', () => {
    const documented = readmeTable('kind').map(({ kind, status, code }) => `${kind} ${status} ${code}`)
    const made = Object.entries(FAILURES).map(([kind, { status, code }]) => `${kind} ${status} ${code}`)
    expect(documented.toSorted()).toEqual(made.toSorted())
  })

  it('says for each what to do, in the words of the story of a request', () => {
    const documented = readmeTable('kind').map(({ kind = '', 'what to do': what = '' }) => [
      kind,
      what.replaceAll('`', ''),
    ])
    expect(Object.fromEntries(documented)).toEqual(ADVICE_OF)
  })
})

describe('the README’s table of metrics', () => {
  it('has every metric of the gateway once; all others are the usual ones of a process', async () => {
    const { registry } = new Metrics()
    new ReloadCounts(registry)
    registerProcessInfo(registry)
    new WebhookCounts(registry)
    const text = await registry.metrics()
    const shown = [...text.matchAll(/^# TYPE (\w+) (\w+)$/gm)].map(([, name = '', type]) =>
      type === 'counter' ? `${name}_total` : name,
    )
    const isOwn = (name: string): boolean => !/^(?:process|nodejs)_/.test(name)
    const documented = readmeTable('metric').map(({ metric = '' }) => metric)
    expect(documented.toSorted()).toEqual(shown.filter(isOwn).toSorted())
    expect(shown.every(isOwn)).toBe(false)
  })
})

it('the docs for tool authors and for configuration say how long a call waits unless that is set', () => {
  const upstream = { url: 'http://x.example', accounts: { main: {} }, limits: { read: [], write: [] } }
  const { maxWait } = checkConfig({ upstreams: { api: upstream } }, 'test').upstreams['api']!.queue
  for (const name of ['tool-authors', 'configure', 'queue'])
    expect(readText(`docs/${name}.md`)).toMatch(new RegExp(`\\bqueue\\.maxWait\\b[^.|]*\\(${maxWait / 1_000} s`))
})

describe('the README’s table of commands', () => {
  it('has every command once', async () => {
    const documented = readmeTable('command').flatMap(({ command = '' }) => commandsIn(command))
    expect(documented.toSorted()).toEqual([...(await helpTexts()).keys()].toSorted())
  })

  it('names arguments and options that its commands have, and so does the rest of the README', async () => {
    const helps = await helpTexts()
    const described = readmeTable('command').map(({ command = '', 'what it does': what = '' }) => ({ command, what }))
    const mentioned = [...README.matchAll(/`(npx sluice [^`|]+)`/g)].map(([, command = '']) => ({ command, what: '' }))
    expect(mentioned).not.toEqual([])
    const wrong = [...described, ...mentioned].flatMap(({ command, what }) =>
      commandsIn(command)
        .filter((name) => !['', ...wordsIn(command, what)].every((word) => hasWord(helps.get(name), word)))
        .map((name) => `${name}: ${command} ${what}`),
    )
    expect(wrong).toEqual([])
  })

  it('names commands and options that there are in every block of code, too', async () => {
    const helps = await helpTexts()
    const lines = [...README.matchAll(/^npx sluice ([^#\n]+)/gm)].map(([, line = '']) => `${line.split(' -- ')[0]} `)
    expect(lines).not.toEqual([])
    const wrong = lines.filter((line) => {
      const name = [...helps.keys()].find((name) => line.startsWith(`${name} `))
      return (
        name === undefined || ![...line.matchAll(/--[a-z-]+/g)].every(([option]) => hasWord(helps.get(name), option))
      )
    })
    expect(wrong).toEqual([])
  })
})

it.each([...README_FILES, 'deploy/README.md'])(
  'every link of %s into the repository leads to a file that there is, and a heading in it',
  (file) => {
    const links = [...readText(file).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)]
    const broken = links.filter(([, to = '', heading]) => {
      const path = to === '' ? file : join(dirname(file), to)
      if (!existsSync(path)) return true
      return heading !== undefined && !headingsOf(readText(path)).has(heading)
    })
    expect(broken.map(([link]) => link)).toEqual([])
  },
)

it('the README leads to every page', () => {
  const text = readText('README.md')
  expect(README_FILES.filter((file) => file !== 'README.md' && !text.includes(`(${file}`))).toEqual([])
})

it('the glossary is in alphabetical order', () => {
  const words = readmeTable('word').map(({ word = '' }) => word.toLowerCase())
  expect(words).toEqual(words.toSorted())
})

/** As they stand behind a `#`. */
function headingsOf(text: string): Set<string> {
  const prose = text.replaceAll(/^```.*?^```$/gms, '')
  return new Set(
    [...prose.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
      title
        .toLowerCase()
        .replaceAll(/[^\w -]/g, '')
        .replaceAll(' ', '-'),
    ),
  )
}

describe('the runbook', () => {
  const text = readText('docs/runbook.md')
  const rules = readText('deploy/prometheus/alerts.yml')
  const alerts = [...rules.matchAll(/- alert: (\w+)$[^]*?severity: (\w+)/gm)]

  it('has every alert once, and says whether it is a page or a ticket', () => {
    const described = [...text.matchAll(/^### (\w+)\n\nA (page|ticket)[.,]/gm)].map(
      ([, name, severity]) => `${name} ${severity}`,
    )
    expect(described.toSorted()).toEqual(alerts.map(([, name, severity]) => `${name} ${severity}`).toSorted())
  })

  it('has a section to which the runbook_url of each alert leads, as long as nobody says where the page is served', () => {
    const links = [...rules.matchAll(/^ +runbook_url: (.*)$/gm)].map(([, link]) => link)
    expect(links).toEqual(alerts.map(([, name]) => `docs/runbook.md#${name!.toLowerCase()}`))
    const [, from = ''] = /sed -i 's\|([^|]+)\|/.exec(readText('deploy/README.md')) ?? []
    for (const file of ['deploy/prometheus/alerts.yml', 'deploy/kubernetes/monitoring/prometheusrule.yaml'])
      expect(readText(file).split(from).length - 1, file).toBe(alerts.length)
  })

  it('says which board a panel is on', () => {
    const titlesOn = (board: string): Set<string> =>
      new Set([...readText(`deploy/grafana/${board}.json`).matchAll(/"title": "([^":]+)/g)].map(([, title]) => title!))
    const boards = { 'on call': titlesOn('on-call'), platform: titlesOn('platform') }
    const [, rule = ''] = /^Names in quotes[^.]*?: (.*?)\./m.exec(text) ?? []
    const [onCall = '', others = ''] = rule.split('are on the board')
    const panels = new Set([...text.matchAll(/"([A-Z][^"…]*)"/g)].map(([, name]) => name!))
    const isOnCall = (name: string): boolean => onCall.includes(`"${name}"`)
    expect(others).toMatch(/"on call", all others on "platform"/)
    expect([...panels].filter((name) => !boards[isOnCall(name) ? 'on call' : 'platform'].has(name))).toEqual([])
  })

  it('says for each what to check first, second and third', () => {
    const steps = text
      .split(/^### /m)
      .slice(1)
      .map((part) => [...part.matchAll(/^(\d)\. /gm)].map(([, number]) => number).join(''))
    expect(new Set(steps)).toEqual(new Set(['123']))
  })
})

it('the user of Redis for everything has every right that the guarantees name', () => {
  const [, section = ''] = /^### Rights in Redis\n(.*?)^### /ms.exec(readText('docs/guarantees.md')) ?? []
  const [needed = '', user = ''] = section.split('```')
  const columns = needed.split('\n').map((line) => (line.startsWith('|') ? line.split('|')[2]! : line))
  const rights = columns.flatMap((text) => [...text.matchAll(/`([a-z ]+)`/g)].map(([, name = '']) => name))
  expect(rights.length).toBeGreaterThan(30)
  expect(rights.filter((name) => !user.split(/\s/).includes(`+${name.replace(' ', '|')}`))).toEqual([])
})

describe('how a credential or a key is rotated', () => {
  const alerts = readText('deploy/prometheus/alerts.yml').replaceAll(/\s+/g, ' ')
  const descriptionOf = (alert: string): string =>
    new RegExp(`- alert: ${alert} .*?description: >- (.*?)(?: - alert:|$)`).exec(alerts)?.[1] ?? ''
  const stepsOf = (alert: string): string =>
    new RegExp(`^### ${alert}\\n(.*?)(?:^### |$(?![^]))`, 'ms').exec(readText('docs/runbook.md'))?.[1] ?? ''

  // Without its date the alert goes on; without the end of the rotation the old value stays in force.
  it.each(['SluiceCredentialExpires', 'SluiceCredentialRolledBack'])('is said to the end for %s', (alert) => {
    for (const text of [descriptionOf(alert), stepsOf(alert)]) {
      expect(text).toContain('rotate NAME --expires DATE')
      expect(text).toContain('rotate NAME --finish')
    }
  })

  // `keys create` only prints: a key that no configuration has is refused.
  it('is said to the end for SluiceClientKeyExpires', () => {
    for (const text of [descriptionOf('SluiceClientKeyExpires'), stepsOf('SluiceClientKeyExpires')])
      expect(text).toMatch(/keys create[^]*add its hash[^]*revoke/i)
  })
})

describe('the README’s table of threats', () => {
  it('names a defence for each, and a test that there is', () => {
    const rows = readmeTable('asset')
    expect(rows.length).toBeGreaterThan(5)
    for (const { threat, defence, test = '' } of rows) {
      expect([threat, defence]).not.toContain('')
      expect(existsSync(test), test).toBe(true)
    }
  })
})

describe('the README’s example of a configuration', () => {
  const example = readmeBlock('yaml')
  const env = { HARNESS_API_KEY: 'key', TICKETS_TOKEN: 'token' }

  it('is accepted as it stands, without a warning', () => {
    const config = parseConfig(example, { env })
    expect(Object.keys(config.upstreams)).toEqual(['harness', 'tickets'])
    expect(config.upstreams['tickets']!.accounts['main']!.credential!.value!.reveal()).toBe('Bearer token')
    expect(warningsOf(config)).toEqual([])
  })

  it('is accepted with what its comments offer instead: another store, and a secret in a file', () => {
    const [, memory = '', redis = ''] = /^store: (\{.*?\}) # or (\{.*\}),/m.exec(example) ?? []
    const [, inVariable = '', inFile = ''] = /(\$\{env:\w+\})'.*# or (\$\{file:.*\})$/m.exec(example) ?? []
    const file = join(newFolder(), 'tickets')
    writeFileSync(file, 'token-of-file\n')
    const text = adapt(example, { [memory]: redis, [inVariable]: inFile.replace('/run/secrets/tickets', file) })
    const url = 'redis://127.0.0.1:6379'
    const config = parseConfig(text, { env: { ...env, REDIS_URL: url } })
    expect(config.store.kind).toBe('redis')
    expect(config.store.url?.reveal()).toBe(url)
    expect(config.upstreams['tickets']!.accounts['main']!.credential!.value!.reveal()).toBe('Bearer token-of-file')
  })

  it('needs every variable that it names', () => {
    const names = [...example.replaceAll(/#.*$/gm, '').matchAll(/\$\{env:(\w+)\}/g)].map(([, name = '']) => name)
    expect(names.toSorted()).toEqual(Object.keys(env).toSorted())
    expect(() => parseConfig(example, { env: {} })).toThrow(/HARNESS_API_KEY[^]*TICKETS_TOKEN/)
  })
})

describe('what the README says of the Harness preset', () => {
  it('are its limits', () => {
    const { limits } = harness.config as { limits: Record<string, { requests: number; window: string }[]> }
    const documented = readmeTable('class').map((row) => `${row['class']} ${row['limit per account']}`)
    const configured = Object.entries(limits).map(
      ([name, list]) =>
        `${name} ${list.map(({ requests, window }) => `${requests} in ${parseDuration(window) / 1_000} s`).join(', ')}`,
    )
    expect(documented).toEqual(configured)
  })

  it('is the number of operations that it knows', () => {
    const [, count = ''] = /knows ([\d,]+) operations one by one/.exec(README) ?? []
    expect(Number(count.replace(',', ''))).toBe(harness.routes().length)
  })
})

it.each(
  README_FILES.flatMap((file) =>
    [...readText(file).matchAll(/^```yml\n(.*?)^```$/gms)].map(([, example = '']) => ({ file, example })),
  ),
)('$file has an example that is accepted, beside what it leaves out: $example', ({ example }) => {
  const part = parse(example.replaceAll('sha256:…', `sha256:${'0'.repeat(64)}`)) as Record<string, object>
  const isWhole = Object.keys(part).every((field) => Object.hasOwn(ConfigSchema.properties, field))
  const { upstreams = { any: isWhole ? {} : part }, ...others } = isWhole ? part : {}
  const leftOut = { url: 'https://any.example', limits: { read: [], write: [], graphql: [] } }
  const whole = Object.entries(upstreams).map(([name, upstream]: [string, object]) => [
    name,
    { accounts: { main: {} }, ...('preset' in upstream ? {} : leftOut), ...upstream },
  ])
  const text = JSON.stringify({ ...others, upstreams: Object.fromEntries(whole) })
  expect(() => parseConfig(text, { env: {}, ignores: () => true })).not.toThrow()
})

describe('what is said of running a gateway', () => {
  const page = readText('docs/run.md')

  it('has as many examples as there are ways to reach Redis', () => {
    expect(page.match(/^```yml$/gm)).toHaveLength(3)
  })

  it('has a unit of systemd that starts what a clone has, and waits until the gateway has drained', () => {
    const [, program = '', script = ''] = /^ExecStart=\/opt\/sluice\/(\S+) (\S+) start$/m.exec(page) ?? []
    expect([program, script].filter((path) => !existsSync(path))).toEqual([])
    const [, seconds] = /^TimeoutStopSec=(\d+)$/m.exec(page) ?? []
    const [, docker] = /--stop-timeout (\d+)/.exec(readText('deploy/README.md')) ?? []
    const { drain } = parseConfig("upstreams: { any: { url: 'https://any.example', accounts: { main: {} } } }", {
      env: {},
    }).server
    for (const waits of [seconds, docker]) expect(Number(waits) * 1_000).toBeGreaterThan(drain + 5_000)
  })
})

it('the example of a log line is one of a path that the Harness preset lists', () => {
  const { route, path } = JSON.parse(readmeBlock('json')) as { route: string; path: string }
  const listed = harness.routes().find((one) => one.path === route)
  expect(listed).toBeDefined()
  expect(path).toMatch(new RegExp(`^/harness${route.replaceAll(/\{\w+\}/g, '[^/]+')}$`))
})

it('the page on traces names attributes of attempts that spans have', () => {
  const [cell = ''] = readmeTable('of the call').flatMap((row) =>
    Object.values(row).filter((text) => text.startsWith('of an attempt: ')),
  )
  let parent = ''
  const named = [...cell.matchAll(/`([\w.]+)`/g)].map(([, name = '']) => {
    if (name.startsWith('.')) return parent + name
    parent = name.slice(0, name.lastIndexOf('.'))
    return name
  })
  const source = readText('src/traces/spans.ts')
  expect(named.filter((name) => !source.includes(`'${name}'`))).toEqual([])
  expect(named).toContain('sluice.credential.version')
})

describe('the steps to get started', () => {
  const steps = readText('docs/get-started.md').split(/^## /m)
  const [, , , write = '', , call = ''] = steps
  const [, configuration = ''] = /^```yml\n(.*?)^```$/ms.exec(write) ?? []

  it('check the configuration with what they export, or without any secret', async () => {
    const folder = newFolder()
    writeFileSync(join(folder, 'sluice.yaml'), configuration)
    const exported = [...write.matchAll(/^export (\w+)=(\S+)/gm)].map(([, name = '', value = '']) => [
      name,
      value.replace('…', 'x'),
    ])
    const env = Object.fromEntries(exported) as Record<string, string>
    expect(await runCommand(['check'], { cwd: folder, env })).toMatchObject({ code: 0, stderr: '' })
    expect(write).toContain('npx sluice check --no-secrets')
    expect(await runCommand(['check', '--no-secrets'], { cwd: folder })).toMatchObject({ code: 0, stderr: '' })
  })

  it('name in the call the account of the configuration, which the vendor wants there', () => {
    const [, id = ''] = /\bid: (\w+)/.exec(configuration) ?? []
    expect(call).toContain(`/ng/api/projects?accountIdentifier=${id}'`)
  })
})

/** The commands of a line, without arguments and options: `npx sluice keys create|list` are `keys create`, `keys list`. */
function commandsIn(line: string): string[] {
  const [, first = '', rest = ''] = /^npx sluice ([a-z]+)((?: [a-z|]+)*)/.exec(line) ?? []
  return rest.split('|').map((last) => `${first} ${last.trim()}`.trim())
}

/** The arguments and options of a line, and the options in what is said of it, as a help text writes them. */
function wordsIn(line: string, what: string): string[] {
  const [, args = ''] = /^npx sluice [a-z| ]+((?: ?[A-Z]+\b)*)/.exec(line) ?? []
  const options = `${line} ${what}`.matchAll(/(--[a-z-]+)(?: ([A-Z]+)\b)?/g)
  return [
    ...[...args.matchAll(/[A-Z]+/g)].map(([name]) => `[${name.toLowerCase()}]`),
    ...[...options].map(([, option, value]) => `${option}${value === undefined ? '' : ` <${value.toLowerCase()}>`}`),
  ]
}

/** Whether a command has that argument or option; none, and not the empty one, if there is no such command. */
function hasWord(help: string | undefined, word: string): boolean {
  return help !== undefined && new RegExp(`${RegExp.escape(word)}(?![\\w-])`).test(help)
}

let helps: Promise<Map<string, string>> | undefined

/** What `--help` says of every command, by its name; all arguments in the brackets of optional ones. */
function helpTexts(): Promise<Map<string, string>> {
  return (helps ??= readHelp([]).then((texts) => new Map(texts)))
}

async function readHelp(command: readonly string[]): Promise<[string, string][]> {
  const { stdout } = await runCommand([...command, '--help'])
  const [, list] = /^Commands:\n(.*)/ms.exec(stdout) ?? []
  const usage = (line: string): string => line.replaceAll('<', '[').replaceAll('>', ']')
  if (list === undefined) return [[command.join(' '), stdout.replace(/^Usage: .*$/m, usage)]]
  const names = [...list.matchAll(/^ {2}(\w+)/gm)].map(([, name = '']) => name).filter((name) => name !== 'help')
  return (await Promise.all(names.map((name) => readHelp([...command, name])))).flat()
}
