import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { type Clock, systemClock } from '../../src/time/clock.ts'
import { checkConfig } from '../../src/config/load.ts'
import { VaultSource } from '../../src/secrets/vault.ts'
import { newFolder, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { runCommand } from '../support/command-line.ts'
import { Program } from '../support/process.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { VaultServer } from '../support/vault-server.ts'

const SECOND = 1_000
const UPSTREAMS = { x: { url: 'http://127.0.0.1:9', accounts: { main: {} } } }

function sourceOf(vault: VaultServer, clock = new SimulatedClock(), change: object = {}): VaultSource {
  const raw = { url: vault.url, roleId: vault.roleId, secretId: vault.secretId, ...change }
  const written = JSON.parse(JSON.stringify({ secrets: { vault: raw }, upstreams: UPSTREAMS })) as object
  const source = new VaultSource(checkConfig(written, 'test').secrets.vault!, clock)
  onTestFinished(() => source.close())
  return source
}

async function startVault(clock: Clock = new SimulatedClock()): Promise<VaultServer> {
  const vault = await new VaultServer(clock).start()
  vault.secrets.set('kv/team/tickets', { data: { token: 'one', user: 'me', number: 5 } })
  return vault
}

describe('secrets of Vault', () => {
  it('are read after a log-in by AppRole, each path once however many fields of it are wanted', async () => {
    const vault = await startVault()
    const answers = await sourceOf(vault).read(['kv/team/tickets#token', 'kv/team/tickets#user'])
    expect([...answers.values()]).toEqual([{ text: 'one' }, { text: 'me' }])
    expect(vault.paths).toEqual(['/v1/auth/approle/login', '/v1/kv/data/team/tickets'])
  })

  it('are read with a token, in a namespace', async () => {
    const vault = await startVault()
    vault.namespace = 'team-a'
    const change = { roleId: undefined, secretId: undefined, token: vault.openSession(), namespace: 'team-a' }
    const answers = await sourceOf(vault, undefined, change).read(['kv/team/tickets#token'])
    expect(answers.get('kv/team/tickets#token')).toEqual({ text: 'one' })
  })

  it('that will be deleted are known to expire', async () => {
    const vault = await startVault()
    vault.secrets.set('kv/a', { data: { v: 'x' }, deletion_time: '2030-01-01T00:00:00.000Z' })
    expect((await sourceOf(vault).read(['kv/a#v'])).get('kv/a#v')).toEqual({ text: 'x', expiresAt: Date.UTC(2030) })
  })

  it.each([
    ['kv/none#token', 'there is no secret kv/none in Vault'],
    ['kv/team/tickets#none', 'has no text none'],
    ['kv/team/tickets#number', 'has no text number'],
    ['kv/team/tickets', 'must be mount/path#field'],
  ])('that are not there are a problem: %s', async (name, problem) => {
    const vault = await startVault()
    const answer = (await sourceOf(vault).read([name])).get(name)
    expect(answer).toEqual({ problem: expect.stringContaining(problem) })
  })

  it('are not had with a wrong secret_id, which the problem does not repeat', async () => {
    const vault = await startVault()
    const answers = await sourceOf(vault, undefined, { secretId: 'wrong-secret' }).read(['kv/team/tickets#token'])
    expect([...answers.values()]).toEqual([{ problem: 'Vault refuses the log-in by AppRole (400)' }])
  })

  it('are tried again while Vault is sealed for a moment', async () => {
    const vault = await startVault()
    const source = sourceOf(vault)
    vault.isSealed = true
    const answers = source.read(['kv/team/tickets#token'])
    await expect.poll(() => vault.paths.length).toBe(1)
    vault.isSealed = false
    expect((await answers).get('kv/team/tickets#token')).toEqual({ text: 'one' })
    vault.isSealed = true
    expect((await source.read(['kv/team/tickets#token'])).get('kv/team/tickets#token')).toEqual({
      problem: 'Vault answered 503',
    })
  })
})

it('says that Vault could not be reached, also where the connection ends within an answer', async () => {
  const { url } = await startUpstream((_, response) => {
    response.writeHead(200, { 'content-length': '100' }).write('{', () => response.destroy())
  })
  const source = sourceOf(await startVault(), undefined, { url })
  expect([...(await source.read(['kv/a#b'])).values()]).toEqual([
    { problem: 'Vault could not be reached (UND_ERR_SOCKET)' },
  ])
})

describe('the token of an AppRole', () => {
  it('is renewed before its lease ends, as often as it takes', async () => {
    const clock = new SimulatedClock()
    const vault = await startVault(clock)
    const source = sourceOf(vault, clock)
    await source.read(['kv/team/tickets#token'])
    const [session] = [...vault.sessions.values()]
    for (let renewals = 1; renewals <= 5; renewals++) {
      await clock.advance(400 * SECOND)
      await expect.poll(() => session!.renewals).toBe(renewals)
      await expect.poll(() => clock.timers).toBe(1)
    }
    expect((await source.read(['kv/team/tickets#token'])).get('kv/team/tickets#token')).toEqual({ text: 'one' })
    expect(vault.paths.filter((path) => path.endsWith('/login'))).toHaveLength(1)
  })

  it('that was revoked is replaced by another log-in', async () => {
    const vault = await startVault()
    const source = sourceOf(vault)
    await source.read(['kv/team/tickets#token'])
    vault.sessions.clear()
    expect((await source.read(['kv/team/tickets#token'])).get('kv/team/tickets#token')).toEqual({ text: 'one' })
  })

  it('is left behind by no read of what may not be read', async () => {
    const vault = await startVault()
    vault.denied = 'kv/denied'
    const source = sourceOf(vault)
    for (let reads = 0; reads < 3; reads++) {
      const answers = await source.read(['kv/denied#x', 'kv/team/tickets#token', 'kv/denied#y'])
      expect([...answers.values()]).toEqual([
        { problem: 'Vault refuses kv/denied (403)' },
        { text: 'one' },
        { problem: 'Vault refuses kv/denied (403)' },
      ])
    }
    expect(vault.sessions.size).toBe(1)
  })

  it('is revoked at the end', async () => {
    const vault = await startVault()
    const source = sourceOf(vault)
    await source.read(['kv/team/tickets#token'])
    expect(vault.sessions.size).toBe(1)
    await source.close()
    expect(vault.sessions.size).toBe(0)
  })
})

describe('a configured token', () => {
  const UNSET = { roleId: undefined, secretId: undefined }

  it('is renewed although Vault did not answer the first question for it', async () => {
    const clock = new SimulatedClock()
    const vault = await startVault(clock)
    const source = sourceOf(vault, clock, { ...UNSET, token: vault.openSession() })
    vault.isSealed = true
    const answers = source.read(['kv/team/tickets#token'])
    await expect.poll(() => vault.paths.length).toBe(1)
    vault.isSealed = false
    expect((await answers).get('kv/team/tickets#token')).toEqual({ text: 'one' })
    await clock.advance(400 * SECOND)
    const [session] = [...vault.sessions.values()]
    await expect.poll(() => session!.renewals).toBe(1)
  })

  it('is renewed after an outage, in which it is tried in vain every ten seconds at the most', async () => {
    const clock = new SimulatedClock()
    const vault = await startVault(clock)
    vault.ttl = 3_600
    const token = vault.openSession()
    const source = sourceOf(vault, clock, { ...UNSET, token })
    await source.read(['kv/team/tickets#token'])
    const tries = () => vault.paths.filter((path) => path.endsWith('/renew-self')).length
    const pass = async (times: number, ms: number) => {
      for (let i = 0; i < times; i++) {
        await clock.advance(ms)
        await expect.poll(() => clock.timers).toBe(1)
      }
    }
    vault.isSealed = true
    await pass(34, 100 * SECOND)
    const before = tries()
    await pass(50, 100)
    expect(tries()).toBeLessThan(before + 2)
    vault.isSealed = false
    await clock.advance(20 * SECOND)
    await expect.poll(() => vault.sessions.get(token)!.renewals).toBe(1)
  })

  it('that is refused is replaced by what its file says by then, and renewed', async () => {
    const clock = new SimulatedClock()
    const vault = await startVault(clock)
    const [old, next] = [vault.openSession(), vault.openSession()]
    const raw = { url: vault.url, token: old }
    const config = checkConfig({ secrets: { vault: raw }, upstreams: UPSTREAMS }, 'test').secrets.vault!
    const source = new VaultSource(config, clock)
    onTestFinished(() => source.close())
    await source.read(['kv/team/tickets#token'])
    vault.sessions.delete(old)
    expect([...(await source.read(['kv/team/tickets#token'])).values()]).toEqual([
      { problem: 'Vault refuses kv/team/tickets (403)' },
    ])
    config.token!.replace(next)
    expect((await source.read(['kv/team/tickets#token'])).get('kv/team/tickets#token')).toEqual({ text: 'one' })
    await clock.advance(400 * SECOND)
    await expect.poll(() => vault.sessions.get(next)!.renewals).toBe(1)
  })
})

it('a token never goes where Vault redirects to', async () => {
  const other = await startUpstream()
  const { url } = await startUpstream((_, response) => response.writeHead(307, { location: other.url }).end())
  const vault = Object.assign(await startVault(), {})
  const source = sourceOf(vault, undefined, { url, roleId: undefined, secretId: undefined, token: 'token-secret' })
  expect([...(await source.read(['kv/a#b'])).values()]).toEqual([
    { problem: 'Vault redirects kv/a: name the node that answers in secrets.vault.url' },
  ])
  expect(other.seen).toEqual([])
})

it('a gateway starts with what is in Vault, uses what comes there later, and reports what is not there by line', async () => {
  const vault = await startVault(systemClock)
  const upstream = await startUpstream()
  const cwd = newFolder()
  const config = {
    server: { port: 0 },
    admin: { port: 0 },
    secrets: { vault: { url: vault.url, roleId: vault.roleId, secretId: '${env:SECRET_ID}', refresh: '1s' } },
    upstreams: {
      x: { url: upstream.url, accounts: { main: { credential: { value: '${vault:kv/team/tickets#token}' } } } },
    },
  }
  const env = { SECRET_ID: vault.secretId }
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  const gateway = new Program(['start'], { cwd, env })
  const { url } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string }
  const sent = async () => {
    await call(url, '/x/y')
    return upstream.seen.at(-1)!.headers.authorization
  }
  expect(await sent()).toBe('one')
  vault.secrets.set('kv/team/tickets', { data: { token: 'two' } })
  await expect.poll(sent).toBe('two')
  // While Vault is away, the last value stays in force.
  vault.isSealed = true
  const before = vault.paths.length
  await expect.poll(() => vault.paths.length).toBeGreaterThan(before)
  expect(await sent()).toBe('two')
  vault.isSealed = false
  gateway.kill('SIGTERM')
  await gateway.ended
  expect(gateway.stdout + gateway.stderr).not.toContain('-secret')
  vault.secrets.clear()
  const { code, stderr } = await runCommand(['check'], { cwd, env })
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: expect.stringMatching(
      /^sluice\.yaml:\d+:\d+: upstreams\.x\.accounts\.main\.credential\.value: there is no secret kv\/team\/tickets in Vault/,
    ),
  })
})
