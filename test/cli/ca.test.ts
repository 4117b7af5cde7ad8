import { execFileSync } from 'node:child_process'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { stringify } from 'yaml'
import { runCommand } from '../support/command-line.ts'
import { newFolder } from '../support/gateway.ts'

const ACCOUNTS = { accounts: { main: {} }, limits: { read: [], write: [] } }

function configured(config: object): string {
  const cwd = newFolder()
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  return cwd
}

it('sluice ca shows the CA, says how to trust it, and makes another', async () => {
  const upstreams = { vendor: { url: 'https://api.vendor.example', ...ACCOUNTS } }
  const cwd = configured({ forwardProxy: {}, upstreams })
  const ca = async (...args: string[]) => await runCommand(['ca', ...args], { cwd })
  const shown = await ca('show')
  expect(shown).toMatchObject({ code: 0, stderr: '' })
  expect(shown.stdout).toMatch(/^good for +api\.vendor\.example, and nothing else$/m)
  const file = /^file +(.+)$/m.exec(shown.stdout)![1]!
  expect((await ca('show')).stdout).toBe(shown.stdout)
  const before = readFileSync(file, 'utf8')
  expect(statSync(join(file, '../issuer.pem')).mode & 0o777).toBe(0o600)
  expect((await ca('install')).stdout).toContain(file)
  const rotated = await ca('rotate')
  expect(rotated).toMatchObject({ code: 0, stdout: expect.stringContaining('Now restart the gateway') })
  expect(readFileSync(file, 'utf8')).not.toBe(before)
  const [, fingerprint] = /^SHA-256 +(\S+)$/m.exec((await ca('show')).stdout)!
  expect(rotated.stdout).toContain(fingerprint)
})

it.each(["My Dir; it's", String.raw`a\b`])('sluice ca install prints the path %s as a shell reads it', async (name) => {
  const upstreams = { vendor: { url: 'https://api.vendor.example', ...ACCOUNTS } }
  const cwd = configured({ forwardProxy: { ca: `./${name}/ca` }, upstreams })
  const { stdout } = await runCommand(['ca', 'install'], { cwd })
  const [, word = ''] = /^cp (.*) \/\S+$/m.exec(stdout)!
  const read = execFileSync('sh', ['-c', `printf %s ${word}`], { encoding: 'utf8' })
  expect(read).toBe(join(cwd, name, 'ca/ca.pem'))
})

it('sluice ca says so where the CA is good for nothing', async () => {
  const cwd = configured({ forwardProxy: {}, upstreams: { vendor: { url: 'http://10.0.0.1', ...ACCOUNTS } } })
  const { code, stdout } = await runCommand(['ca', 'show'], { cwd })
  expect(code).toBe(0)
  expect(stdout).toMatch(/^good for +no host: no upstream is called by https$/m)
})
