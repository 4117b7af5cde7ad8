import { execFileSync, spawnSync } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { Authority, rotateAuthority } from '../../src/forward-proxy/authority.ts'
import { makeLeaf } from '../../src/forward-proxy/certificates.ts'
import { newFolder } from '../support/gateway.ts'

const HOSTS = ['api.vendor.example', '10.0.0.5']

/** What a thief of the folder can do: sign for any host. */
function stolen(folder: string): (host: string) => { cert: string; key: string } {
  const text = readFileSync(join(folder, 'issuer.pem'), 'utf8')
  const issuer = { certificate: new X509Certificate(text).raw, key: createPrivateKey(text) }
  return (host) => makeLeaf(issuer, host, Date.now())
}

it('is made in a folder and a file that only its owner can read, and is opened again as it was', async () => {
  const folder = join(newFolder(), 'new', 'ca')
  const made = await Authority.open(folder, HOSTS)
  expect(statSync(folder).mode & 0o777).toBe(0o700)
  expect(statSync(join(folder, 'issuer.pem')).mode & 0o777).toBe(0o600)
  const again = await Authority.open(folder, ['another.example'])
  expect(again.root.fingerprint256).toBe(made.root.fingerprint256)
  expect(again.hosts).toEqual(HOSTS)
  expect(readdirSync(dirname(folder))).toEqual(['ca'])
})

it('of processes that begin at once, all use the same', async () => {
  const folder = join(newFolder(), 'ca')
  const opened = await Promise.all(Array.from({ length: 4 }, () => Authority.open(folder, HOSTS)))
  expect(new Set(opened.map(({ root }) => root.fingerprint256)).size).toBe(1)
})

it('is not used if others can read its key, or if it is damaged', async () => {
  const folder = join(newFolder(), 'ca')
  await Authority.open(folder, HOSTS)
  const file = join(folder, 'issuer.pem')
  chmodSync(file, 0o640)
  await expect(Authority.open(folder, HOSTS)).rejects.toThrow(/can be read by others: chmod 600 it/)
  chmodSync(file, 0o600)
  writeFileSync(file, 'no certificate')
  await expect(Authority.open(folder, HOSTS)).rejects.toThrow(/can't be used .*npx sluice ca rotate/)
})

it('signs for its own hosts and names below them until it ends, and says why not for others', async () => {
  const authority = await Authority.open(join(newFolder(), 'ca'), HOSTS)
  expect(authority.whyNot('api.vendor.example')).toBeUndefined()
  expect(authority.whyNot('eu.api.vendor.example')).toBeUndefined()
  expect(authority.whyNot('10.0.0.5')).toBeUndefined()
  expect(authority.whyNot('vendor.example')).toMatch(/was made before vendor.example was an upstream's/)
  expect(authority.whyNot('xapi.vendor.example')).toMatch(/sluice ca rotate/)
  expect(authority.whyNot('api.vendor.example', Date.now() + 366 * 86_400_000)).toMatch(/has expired/)
})

it('is made for no empty host, below which are all', async () => {
  const folder = join(newFolder(), 'ca')
  await expect(Authority.open(folder, [...HOSTS, ''])).rejects.toThrow(
    /no CA can be made in .*: an empty host would make it good for all hosts/,
  )
  expect(existsSync(folder)).toBe(false)
})

it('is not used if it is good for all hosts, as some of before are', async () => {
  const folder = newFolder()
  const files = { key: join(folder, 'key.pem'), root: join(folder, 'ca.pem'), issuer: join(folder, 'issuer.pem') }
  const options = `-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout ${files.key} -out ${files.root}`
  const forAll = 'nameConstraints=critical,DER:30:06:A0:04:30:02:82:00'
  execFileSync('openssl', ['req', '-x509', '-addext', forAll, ...options.split(' ')], { stdio: 'pipe' })
  writeFileSync(files.issuer, readFileSync(files.key, 'utf8') + readFileSync(files.root, 'utf8'), { mode: 0o600 })
  await expect(Authority.read(folder)).rejects.toThrow(/good for every host, .* trust store.*npx sluice ca rotate/)
})

it('makes a certificate once, and anew when half of its day is over', async () => {
  const authority = await Authority.open(join(newFolder(), 'ca'), HOSTS)
  const now = Date.now()
  const first = authority.leafFor('api.vendor.example', now)
  expect(authority.leafFor('api.vendor.example', now + 11 * 3_600_000)).toBe(first)
  const next = authority.leafFor('api.vendor.example', now + 13 * 3_600_000)
  expect(next).not.toBe(first)
  const { validFromDate, validToDate } = new X509Certificate(first.cert)
  expect(validToDate.getTime() - validFromDate.getTime()).toBe(25 * 3_600_000)
})

it('is replaced by another one that is good for the hosts of now', async () => {
  const folder = join(newFolder(), 'ca')
  const before = await Authority.open(folder, HOSTS)
  const after = await rotateAuthority(folder, ['other.example'])
  expect(after.hosts).toEqual(['other.example'])
  expect(after.root.fingerprint256).not.toBe(before.root.fingerprint256)
  expect(readdirSync(dirname(folder))).toEqual(['ca'])
})

/** A host, and whether clients may take a certificate for it that was signed with a stolen key. */
const FORGED: readonly (readonly [hosts: readonly string[], host: string, isGood: boolean])[] = [
  [HOSTS, 'api.vendor.example', true],
  [HOSTS, '10.0.0.5', true],
  [HOSTS, 'vendor.example', false],
  [HOSTS, 'bank.example', false],
  [HOSTS, '10.0.0.6', false],
  [HOSTS, '2001:db8::1', false],
  [['api.vendor.example'], '10.0.0.5', false],
  [['api.vendor.example'], '2001:db8::1', false],
  [['10.0.0.5'], 'bank.example', false],
  [['2001:db8::1'], '2001:db8::1', true],
  [['2001:db8::1'], '10.0.0.5', false],
]

it('a stolen key is of no use for other hosts: OpenSSL refuses them, and every certificate is in order for its strictest check', async () => {
  for (const [hosts, host, isGood] of FORGED) {
    const folder = join(newFolder(), 'ca')
    await Authority.open(folder, hosts)
    writeFileSync(join(folder, 'leaf.pem'), stolen(folder)(host).cert)
    const args = ['verify', '-x509_strict', '-CAfile', 'ca.pem', '-untrusted', 'issuer.pem', 'leaf.pem']
    const { status, stdout, stderr } = spawnSync('openssl', args, { cwd: folder, encoding: 'utf8' })
    expect(status === 0, `${host} by a CA for ${hosts.join()}: ${stdout}${stderr}`).toBe(isGood)
    if (!isGood) expect(stderr).toMatch(/permitted subtree violation|excluded subtree violation/)
  }
})

it('a stolen key is of no use for other hosts: Node, Python and curl refuse them', async () => {
  const folder = join(newFolder(), 'ca')
  const { file } = await Authority.open(folder, ['localhost'])
  const forge = stolen(folder)
  const listen = async (host: string): Promise<number> => {
    const server = createServer(forge(host), (_, response) => response.end('ok')).listen(0, '127.0.0.1')
    server.on('tlsClientError', () => undefined)
    onTestFinished(() => void (server.closeAllConnections(), server.close()))
    await new Promise((resolve) => server.once('listening', resolve))
    return (server.address() as AddressInfo).port
  }
  // The same address by two names, of which the CA is good for one.
  const [good, forged] = [await listen('localhost'), await listen('bank.example')]
  const python = `
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[3]))), server_hostname=sys.argv[2])
print("taken")
`
  const node = `require('node:tls').connect({ host: '127.0.0.1', port: process.argv[3], servername: process.argv[2],
    ca: require('node:fs').readFileSync(process.argv[1]) }, () => { console.log('taken'); process.exit() })`
  const clients: Record<string, (host: string, port: number) => [string, ...string[]]> = {
    curl: (host, port) => [
      'curl',
      '-sS',
      '--cacert',
      file,
      '--resolve',
      `${host}:${port}:127.0.0.1`,
      `https://${host}:${port}/`,
    ],
    python: (host, port) => ['python3', '-c', python, file, host, String(port)],
    node: (host, port) => [process.execPath, '-e', node, file, host, String(port)],
  }
  const outcome = async ([program, ...args]: [string, ...string[]]): Promise<string> => {
    const { spawn } = await import('node:child_process')
    const child = spawn(program, args)
    const [out, err] = await Promise.all([child.stdout.toArray(), child.stderr.toArray()])
    return out.join('') + err.join('')
  }
  for (const [name, command] of Object.entries(clients)) {
    expect(await outcome(command('localhost', good)), name).toMatch(/^(ok|taken)/)
    expect(await outcome(command('bank.example', forged)), name).toMatch(
      /permitted subtree violation|PERMITTED_VIOLATION/i,
    )
  }
})

it('can be read by whoever looks at it: openssl shows what it is good for', async () => {
  const folder = join(newFolder(), 'ca')
  const { file } = await Authority.open(folder, HOSTS)
  const text = execFileSync('openssl', ['x509', '-in', file, '-noout', '-text'], { encoding: 'utf8' })
  expect(text).toMatch(
    /CA:TRUE, pathlen:1[^]*Name Constraints: critical\s+Permitted:\s+DNS:api\.vendor\.example\s+IP:10\.0\.0\.5/,
  )
})
