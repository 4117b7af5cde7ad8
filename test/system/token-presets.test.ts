import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { presets } from '../../src/config/presets/index.ts'
import { newFolder, startGateway, type TestGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { startTokenVendor, type TokenVendor } from '../support/token-vendor.ts'

type Name = 'openai' | 'anthropic' | 'azure-openai'

const PATHS = {
  openai: '/v1/chat/completions',
  anthropic: '/v1/messages',
  'azure-openai': '/openai/deployments/model/chat/completions?api-version=2024-10-21',
}
const CLASSES = { openai: 'tokens', anthropic: 'messages', 'azure-openai': 'deployment' }
const CREDENTIALS = {
  openai: { header: 'authorization', value: 'Bearer secret-of-the-vendor' },
  anthropic: { value: 'secret-of-the-vendor' },
  'azure-openai': { value: 'secret-of-the-vendor' },
}

interface PresetLimit {
  readonly name?: string
  readonly window: string
  requests: number
  readonly cost?: { readonly reserve: { most: number; readonly missRate?: string } }
}

/** The limits of a preset, with other numbers. */
function limitsOf(name: Name, numbers: Readonly<Record<string, number>>): readonly object[] {
  const limits = structuredClone(presets[name]!.config.limits[CLASSES[name]]) as PresetLimit[]
  for (const limit of limits) {
    const requests = numbers[limit.name ?? `requests ${limit.window}`] ?? numbers[limit.name ?? 'requests']
    if (requests === undefined) continue
    limit.requests = requests
    if (limit.cost === undefined) continue
    const { reserve } = limit.cost
    reserve.most = reserve.missRate === undefined ? requests : requests / 4
  }
  return limits
}

async function start(
  name: Name,
  vendorsLimits: Readonly<Record<string, number>>,
  ours = vendorsLimits,
  windowMs = 60_000,
): Promise<{ vendor: TokenVendor; gateway: TestGateway }> {
  const vendor = await startTokenVendor(name, { limits: vendorsLimits, windowMs })
  const upstream = {
    preset: name,
    url: vendor.url,
    accounts: { main: { credential: CREDENTIALS[name] } },
    limits: { [CLASSES[name]]: limitsOf(name, ours) },
  }
  const gateway = await startGateway({
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: { it: upstream },
    clients: { tool: { keys: [hashKey('key-of-tool')] } },
  })
  return { vendor, gateway }
}

const NOW = { 'x-sluice-max-wait': '0' }

function ask(gateway: TestGateway, name: Name, body: object, headers: Record<string, string> = {}) {
  const key = { 'x-sluice-key': 'key-of-tool', 'anthropic-version': '2023-06-01' }
  const messages = [{ role: 'user', content: 'say 100' }]
  return call(gateway.url, `/it${PATHS[name]}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...key, ...headers },
    body: JSON.stringify({ model: 'model', messages, max_tokens: 1_000, ...body }),
  })
}

async function used(gateway: TestGateway, label: string): Promise<number> {
  const text = await gateway.metrics()
  const counts = [...text.matchAll(/^sluice_quota_used\{([^}]*)\} (\S+)/gm)].filter(([, labels]) =>
    labels!.includes(label),
  )
  return Math.max(...counts.map(([, , count]) => Number(count)))
}

/** Calls until the gateway itself refuses one; how many were answered. */
async function askUntilRefused(gateway: TestGateway, name: Name, body: object = {}): Promise<number> {
  for (let answered = 0; answered < 100; answered++) {
    const { status, headers } = await ask(gateway, name, body, NOW)
    if (status === 429 && headers['x-sluice-error'] === 'quota_exhausted') return answered
    expect(status).toBe(200)
  }
  throw new Error('nothing was refused')
}

describe('a preset of tokens, before a vendor that counts as its page says', () => {
  it('openai: keeps its limit by what requests ask for at most, of each model, and no answer is 429', async () => {
    const { vendor, gateway } = await start('openai', { requests: 500, tokens: 10_000 })
    expect(await askUntilRefused(gateway, 'openai', { max_tokens: 1_000 })).toBe(10)
    expect(
      await askUntilRefused(gateway, 'openai', { model: 'other', max_tokens: 0, max_completion_tokens: 4_900 }),
    ).toBe(2)
    expect(vendor.refused).toBe(0)
  })

  it('openai: keeps its limit by what characters are taken for, where nothing is asked for', async () => {
    const { vendor, gateway } = await start('openai', { requests: 500, tokens: 10_000 })
    const messages = [{ role: 'user', content: `say 5 ${'x'.repeat(8_000)}` }]
    expect(await askUntilRefused(gateway, 'openai', { max_tokens: undefined, messages })).toBe(4)
    expect(vendor.refused).toBe(0)
  })

  it('azure-openai: keeps the limits of a deployment by the prompt, max_tokens and best_of', async () => {
    const { vendor, gateway } = await start('azure-openai', { requests: 500, tokens: 10_000 })
    expect(await askUntilRefused(gateway, 'azure-openai', { max_tokens: 450, best_of: 2 })).toBe(10)
    expect(vendor.refused).toBe(0)
    expect(vendor.seen[0]!.url).toBe(PATHS['azure-openai'])
  })

  it('azure-openai: sends no more in a second than a sixtieth of what a minute has', async () => {
    const { gateway } = await start(
      'azure-openai',
      { requests: 60, tokens: 100_000 },
      { 'requests 1s': 3, 'requests 60s': 60 },
    )
    const answers = await Promise.all(Array.from({ length: 4 }, () => ask(gateway, 'azure-openai', {}, NOW)))
    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 200, 200, 429])
  })

  it.each([false, true])('anthropic: settles to the tokens that there were, streamed (%s)', async (stream) => {
    const { vendor, gateway } = await start('anthropic', {
      requests: 50,
      'input-tokens': 20_000,
      'output-tokens': 8_000,
    })
    const messages = [{ role: 'user', content: `say 700 ${'x'.repeat(392)}` }]
    const { status, body } = await ask(gateway, 'anthropic', { stream, messages })
    expect(status).toBe(200)
    expect(body).toContain(stream ? 'event: message_delta' : '"output_tokens":700')
    await expect.poll(() => used(gateway, 'output-tokens')).toBe(700)
    expect(await used(gateway, 'input-tokens')).toBe(100)
    expect(vendor.refused).toBe(0)
  })

  it('anthropic: does not count tokens that an error did not produce', async () => {
    const { gateway, vendor } = await start('anthropic', {
      requests: 50,
      'input-tokens': 20_000,
      'output-tokens': 8_000,
    })
    await ask(gateway, 'anthropic', {})
    vendor.counts.get('model')!['output-tokens']!.take(8_000)
    const answer = await ask(gateway, 'anthropic', {}, { 'x-sluice-retry': 'off' })
    expect(answer.status).toBe(429)
    expect(answer.json()).toMatchObject({ type: 'error', error: { type: 'rate_limit_error' } })
    await expect.poll(() => used(gateway, 'output-tokens')).toBe(100)
  })

  it.each(['openai', 'anthropic', 'azure-openai'] as const)(
    '%s: adds its credential where the vendor takes it',
    async (name) => {
      const { vendor, gateway } = await start(name, {
        requests: 50,
        tokens: 10_000,
        'input-tokens': 20_000,
        'output-tokens': 8_000,
      })
      await ask(gateway, name, {})
      const { headers } = vendor.seen[0]!
      const given = {
        openai: headers.authorization,
        anthropic: headers['x-api-key'],
        'azure-openai': headers['api-key'],
      }
      expect(given[name]).toBe(name === 'openai' ? 'Bearer secret-of-the-vendor' : 'secret-of-the-vendor')
      expect(JSON.stringify(headers)).not.toContain('key-of-tool')
      if (name === 'anthropic') expect(headers['anthropic-version']).toBe('2023-06-01')
    },
  )

  it.each(['openai', 'azure-openai'] as const)(
    '%s: repeats a refused POST when its retry-after-ms is over',
    async (name) => {
      const { vendor, gateway } = await start(
        name,
        { requests: 1_000, tokens: 4_000 },
        { requests: 1_000, tokens: 100_000 },
        4_000,
      )
      await ask(gateway, name, { max_tokens: 100 })
      const count = vendor.counts.get('model')!['tokens']!
      count.take(Math.floor(count.left) - 900)
      const answer = await ask(gateway, name, { max_tokens: 2_000 })
      expect([answer.status, vendor.refused, Number(answer.headers['x-sluice-attempts'])]).toEqual([200, 1, 2])
    },
  )

  it.each(['openai', 'anthropic'] as const)(
    '%s: believes what remains, as somebody else uses the account',
    async (name) => {
      const limits = { requests: 500, tokens: 40_000, 'input-tokens': 40_000, 'output-tokens': 100_000 }
      const { vendor, gateway } = await start(name, limits)
      await ask(gateway, name, { max_tokens: 1_000 })
      const unit = name === 'openai' ? 'tokens' : 'input-tokens'
      const count = vendor.counts.get('model')![unit]!
      count.take(30_000)
      await ask(gateway, name, { max_tokens: 1_000 })
      const text = await gateway.metrics()
      const left = [...text.matchAll(/^sluice_quota_effective_limit\{([^}]*)\} (\S+)/gm)].find(([, labels]) =>
        labels!.includes(`m ${unit} by`),
      )
      expect(Number(left?.[2])).toBeGreaterThan(5_000)
      expect(Number(left?.[2])).toBeLessThan(11_000)
      expect(vendor.refused).toBe(0)
    },
  )

  it('refuses in the words of the vendor', async () => {
    const openai = await start('openai', { requests: 1, tokens: 10_000 })
    await ask(openai.gateway, 'openai', {})
    const refused = await ask(openai.gateway, 'openai', {}, NOW)
    expect(refused.json()).toMatchObject({ error: { type: 'requests', code: 'rate_limit_exceeded', param: null } })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    const anthropic = await start('anthropic', { requests: 1, 'input-tokens': 20_000, 'output-tokens': 8_000 })
    await ask(anthropic.gateway, 'anthropic', {})
    const other = await ask(anthropic.gateway, 'anthropic', {}, NOW)
    expect(other.json()).toMatchObject({ type: 'error', error: { type: 'rate_limit_error' } })
  })
})
