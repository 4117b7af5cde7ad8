import { readFileSync } from 'node:fs'
import { join } from 'node:path'

export const FOLDER = import.meta.dirname
const PROGRAMS = join(FOLDER, 'programs')

export interface Client {
  readonly name: string
  /** Its package, or whatever the machine has. */
  readonly from: 'npm' | 'PyPI' | 'the machine'
  readonly package: string
  /** Of `programs`. */
  readonly program: string
  /** As the vendor's key goes, which is as ours comes. */
  readonly key: string
  readonly tried: string
  /** What the program prints. */
  readonly prints: unknown
  /** What it says of a key that no client has. */
  readonly saysOfWrongKey: RegExp
  /** The gateway refuses a call, and the client comes back by itself. */
  readonly isRefusedOnce?: boolean
  readonly note?: string
}

const WHY = /unknown client key in authorization/

/** Every client that the test tries, unmodified, through a gateway. The page in docs is made of this list. */
export const CLIENTS: readonly Client[] = [
  {
    name: 'Octokit',
    from: 'npm',
    package: '@octokit/rest',
    program: 'octokit.mjs',
    key: '`token KEY`',
    tried: 'GitHub: get a repository, all pages of its issues, create an issue',
    prints: ['o/r', ['First page', 'Second page'], 'Late — again'],
    saysOfWrongKey: WHY,
    note: '`paginate` follows the `Link` of GitHub’s answers, which the gateway lets lead to itself.',
  },
  {
    name: 'PyGithub',
    from: 'PyPI',
    package: 'PyGithub',
    program: 'pygithub.py',
    key: '`token KEY`',
    tried: 'GitHub: get a repository, all pages of its issues, create an issue',
    prints: ['o/r', ['First page', 'Second page'], 'Late again'],
    saysOfWrongKey: WHY,
    note: 'Lists follow the `Link` of GitHub’s answers, which the gateway lets lead to itself. URLs in the bodies still lead to `api.github.com`, and PyGithub refuses another host than the one that it was given. So get a repository with `lazy=True`.',
  },
  {
    name: 'Slack SDK',
    from: 'npm',
    package: '@slack/web-api',
    program: 'slack.mjs',
    key: '`Bearer KEY`',
    tried: 'Slack: post a message, as a form',
    prints: [true, '1700000000.000100'],
    saysOfWrongKey: WHY,
    note: 'It takes every status but 200 and 429 for a passing trouble, and tries again for half an hour. So the gateway’s refusals have the status 200 and `ok: false`, as Slack’s have, unless they may pass (429, 5xx).',
  },
  {
    name: 'axios',
    from: 'npm',
    package: 'axios',
    program: 'axios.mjs',
    key: 'Basic, as the password',
    tried: 'Jira: get an issue, create one',
    prints: ['KEY-1', 'Späte Lieferung', 201],
    saysOfWrongKey: WHY,
  },
  {
    name: 'Requests',
    from: 'PyPI',
    package: 'requests',
    program: 'jira_requests.py',
    key: 'Basic, as the password',
    tried: 'Jira: get an issue, create one',
    prints: ['KEY-1', 'Späte Lieferung', 201],
    saysOfWrongKey: WHY,
  },
  {
    name: 'OpenAI SDK',
    from: 'npm',
    package: 'openai',
    program: 'openai.mjs',
    key: '`Bearer KEY`',
    tried: 'OpenAI: a chat completion that is streamed, piece by piece; one that the gateway refuses at first',
    prints: ['Hel', 'lo', 'Hello'],
    saysOfWrongKey: WHY,
    isRefusedOnce: true,
    note: 'It retries a call that the gateway refused with 429, twice at most, when the time in `Retry-After` is over. With a longer `queue.maxWait` calls wait in the gateway instead.',
  },
  {
    name: 'OpenAI SDK for Azure',
    from: 'npm',
    package: 'openai',
    program: 'azure-openai.mjs',
    key: '`api-key: KEY`',
    tried: 'Azure OpenAI: a chat completion of a deployment',
    prints: 'Hello',
    saysOfWrongKey: /unknown client key in api-key/,
  },
  {
    name: 'Anthropic SDK',
    from: 'npm',
    package: '@anthropic-ai/sdk',
    program: 'anthropic.mjs',
    key: '`Bearer KEY`',
    tried: 'Claude: a message that is streamed, piece by piece; one that the gateway refuses at first',
    prints: ['Hel', 'lo', 2, 'Hello'],
    saysOfWrongKey: WHY,
    isRefusedOnce: true,
    note: 'The vendor gets the account’s key in `x-api-key`, whichever header the SDK uses. It retries a refused call as the SDK of OpenAI does.',
  },
  {
    name: 'got',
    from: 'npm',
    package: 'got',
    program: 'got.mjs',
    key: '`Bearer KEY`',
    tried: 'any API: get and post JSON',
    prints: ['1', 'a'],
    saysOfWrongKey: /401 \(Unauthorized\)/,
    note: 'Its errors do not show the text of an answer: it is in `error.response.body`.',
  },
  {
    name: 'undici',
    from: 'npm',
    package: 'undici',
    program: 'undici.mjs',
    key: '`Bearer KEY`',
    tried: 'any API: get and post JSON over a pool',
    prints: ['1', 'a'],
    saysOfWrongKey: WHY,
  },
  {
    name: 'node-fetch',
    from: 'npm',
    package: 'node-fetch',
    program: 'node-fetch.mjs',
    key: '`Bearer KEY`',
    tried: 'any API: get and post JSON',
    prints: ['1', 'a'],
    saysOfWrongKey: WHY,
  },
  {
    name: 'HTTPX',
    from: 'PyPI',
    package: 'httpx',
    program: 'httpx_client.py',
    key: '`Bearer KEY`',
    tried: 'any API: get and post JSON',
    prints: ['1', 'a'],
    saysOfWrongKey: WHY,
  },
  {
    name: 'Java HttpClient',
    from: 'the machine',
    package: 'java',
    program: 'JavaHttpClient.java',
    key: '`Bearer KEY`',
    tried: 'any API: get and post JSON, with the default `Upgrade: h2c`, which is ignored',
    prints: [200, { name: 'a' }],
    saysOfWrongKey: WHY,
  },
  {
    name: 'curl --http2',
    from: 'the machine',
    package: 'curl',
    program: 'curl.sh',
    key: '`Bearer KEY`',
    tried: 'any API: get and post JSON, with `Upgrade: h2c`, which is ignored',
    prints: { name: 'a' },
    saysOfWrongKey: WHY,
  },
]

/** Which version of it is tried. Of what the machine has, whichever that is. */
function versionOf({ from, package: name }: Client): string {
  if (from === 'the machine') return 'the machine’s'
  const read = (file: string): string => readFileSync(join(FOLDER, file), 'utf8')
  if (from === 'PyPI') return new RegExp(`^${name}==(.*)$`, 'm').exec(read('requirements.txt'))![1]!
  return (JSON.parse(read('package.json')) as { dependencies: Record<string, string> }).dependencies[name]!
}

/** The lines of its program between "What is set:" and "And what is called:". */
function setUpOf({ program }: Client): string {
  const text = readFileSync(join(PROGRAMS, program), 'utf8')
  const [, setUp = ''] = /What is set:\n([\s\S]*?)\n *(?:#|\/\/) And what is called:/.exec(text) ?? []
  const indent = /^ */.exec(setUp)![0]
  return setUp.replaceAll(new RegExp(`^${indent}`, 'gm'), '')
}

const LANGUAGES: Record<string, string> = { mjs: 'js', py: 'python', java: 'java', sh: 'sh' }

/** `docs/clients-tried.md`. */
export function page(): string {
  const rows = CLIENTS.map((client) => [client.name, versionOf(client), client.key, client.tried])
  const parts = CLIENTS.map((client) => {
    const language = LANGUAGES[client.program.split('.').at(-1)!]
    const note = client.note === undefined ? '' : `\n${client.note}\n`
    return `### ${client.name}\n\n\`\`\`${language}\n${setUpOf(client)}\n\`\`\`\n${note}`
  })
  return `# Clients tried

The test \`test/clients-tried/clients.test.ts\` runs these clients, unchanged, through a gateway, with its address and the key of a client. It checks that each gets the vendor's answer, that the vendor gets its own credential and never the client's key, and what a client says of\na wrong key. This page is made by \`node test/clients-tried/write-page.ts\`.

${table(['client', 'version', 'its key goes as', 'what was tried'], rows)}

git over HTTPS, and tools that have no setting for the address, are tried with \`npx sluice run\`: see [tools that know only a proxy](forward-proxy.md#the-local-ca).

## What is set

\`SLUICE_URL\` is the gateway's, such as \`http://127.0.0.1:8080\`, and \`SLUICE_KEY\` is a client's key. The upstreams have the names
that the URLs begin with. The whole programs are in \`test/clients-tried/programs\`.

${parts.join('\n')}`
}

/** As the formatter of the repository has tables. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((name, column) => Math.max(name.length, ...rows.map((row) => row[column]!.length)))
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join(' | ')} |`
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}
