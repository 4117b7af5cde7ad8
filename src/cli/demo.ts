import { checkConfig } from '../config/load.ts'
import type { Config } from '../schema/schema.ts'

/** An account of the sandbox, and a key that the sandbox accepts for it. */
export const DEMO_ACCOUNT = 'demo1234'
export const DEMO_KEY = `pat.${DEMO_ACCOUNT}.sandbox.nosecret`

const DEMO_FOLDER = '.sluice/demo'

/** The configuration that is used when there is none: the Harness preset in front of the sandbox. */
export function demoConfig(sandboxUrl: string): Config {
  const accounts = { demo: { id: DEMO_ACCOUNT, credential: { value: DEMO_KEY } } }
  // With the second window, calls wait for seconds at most. With the first alone it would be a minute.
  const webhook = [
    { requests: 500, window: '60s' },
    { requests: 20, window: '1s' },
  ]
  const harness = { preset: 'harness', url: sandboxUrl, accounts, limits: { webhook } }
  // What the demo remembers must not end up in the usage of the gateway that is configured here later.
  const store = { dir: DEMO_FOLDER }
  return checkConfig({ defaultUpstream: 'harness', upstreams: { harness }, store }, 'demo')
}

interface Demo {
  readonly url: string
  readonly adminUrl: string
  readonly controlUrl: string
  /** Whether the demo was asked for, or runs because nothing is configured. */
  readonly isWanted: boolean
}

/** Commands to paste that show what the gateway does, and where to read on. */
export function demoNotice({ url, adminUrl, controlUrl, isWanted }: Demo): string {
  const api = `${url}/harness`
  const account = `accountIdentifier=${DEMO_ACCOUNT}`
  const quota = adminUrl === 'http://127.0.0.1:9090' ? 'npx sluice quota' : `npx sluice quota --url ${adminUrl}`
  return `
${isWanted ? 'This' : 'Nothing is configured, so this'} is a demo: the gateway, in front of a sandbox that behaves like the Harness API.
Paste these into another terminal:

  # a read, with its quota in the response headers
  curl -i '${api}/ng/api/projects?${account}'

  # a write
  curl -i -X POST '${api}/ng/api/projects?${account}' -H 'content-type: application/json' -d '{"project":{"identifier":"demo","name":"Demo"}}'

  # 120 reads of templates that may not wait, of which a minute has room for 100: 100 times 200, 20 times 429
  curl -s -o /dev/null -w '%{http_code}\\n' -H 'X-Sluice-Max-Wait: 0' '${api}/template/api/templates/template_1?n=[1-120]&${account}' | sort | uniq -c

  # 60 webhooks at once that may wait, of which a second has room for 20: 60 times 200, after two seconds
  curl -Z --parallel-max 60 --no-progress-meter -o /dev/null -w '%{http_code}\\n' -X POST '${api}/ng/api/webhook?n=[1-60]&${account}' | sort | uniq -c

  # how much of each quota is used now; npx sluice top shows it live
  ${quota}

Clients: ${url}. Admin: ${adminUrl}, with the metrics on /metrics. Faults of the sandbox: ${controlUrl}, see docs/sandbox.md.
Quotas are remembered in ./${DEMO_FOLDER}, apart from those of a gateway with a configuration. Ctrl-C stops everything.
To serve the real API, set HARNESS_ACCOUNT_ID and HARNESS_API_KEY, or write a sluice.yaml (see README.md).

`
}
