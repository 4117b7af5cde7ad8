import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { harnessConfig, newFolder, startGateway, startUpstream } from '../support/gateway.ts'
import { RawClient } from '../support/http.ts'
import { hasProgram } from '../support/packages.ts'

const PATH = '/harness/ng/api/projects'
const H2C = 'Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'

const run = promisify(execFile)
const echo = () => startUpstream(({ method, body }, response) => response.end(`<${method} ${body}>`))

describe('an Upgrade to anything but a WebSocket', () => {
  it.each([false, true])('is ignored, and the connection stays open (server.http2: %s)', async (http2) => {
    const upstream = await echo()
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { server: { port: 0, http2 } }))
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${PATH} HTTP/1.1\r\n${H2C}\r\n`)
    await client.until(/<GET >/)
    client.write(`POST ${PATH} HTTP/1.1\r\n${H2C}Content-Length: 3\r\n\r\none`)
    await client.until(/<POST one>/)
    client.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`)
    const received = await client.until(/<GET >[^]*<GET >/)
    expect(received.match(/HTTP\/1\.1 \d+/g)).toEqual(Array(3).fill('HTTP/1.1 200'))
    expect(received).not.toMatch(/^connection: close/im)
    for (const { headers } of upstream.seen)
      expect([headers.upgrade, headers['http2-settings'], headers.connection]).toEqual([
        undefined,
        undefined,
        'keep-alive',
      ])
    client.socket.destroy()
  })

  it.each([
    ['a body in chunks', 'POST', 'Transfer-Encoding: chunked\r\n', '3\r\none\r\n0\r\n\r\n'],
    ['another request behind it', 'GET', '', `GET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`],
    ['a body and another request', 'POST', 'Content-Length: 3\r\n', `oneGET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`],
  ])('is ignored, and no client waits in vain for what it sent behind it: %s', async (_, method, fields, rest) => {
    const upstream = await echo()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const client = await RawClient.connect(gateway.url)
    client.write(`${method} ${PATH} HTTP/1.1\r\n${H2C}${fields}\r\n${rest}`)
    const received = await client.closed()
    expect(received).toMatch(/^HTTP\/1\.1 200[^]*\r\nconnection: close\r\n[^]*<(GET |POST one)>/i)
    expect(upstream.seen).toHaveLength(1)
  })

  it.each(['h2c', 'TLS/1.0, HTTP/2.0', 'foo/2', 'websockets', 'x-websocket'])('is ignored: %s', async (protocol) => {
    const upstream = await echo()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`)
    expect(await client.until(/<GET >/)).toMatch(/^HTTP\/1\.1 200/)
    expect(upstream.seen[0]!.headers.upgrade).toBeUndefined()
    client.socket.destroy()
  })

  it('is ignored in HTTP/1.0, even to a WebSocket', async () => {
    const upstream = await echo()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${PATH} HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`)
    expect(await client.closed()).toMatch(/^HTTP\/1\.1 200[^]*<GET >/)
  })

  it.skipIf(!hasProgram('curl'))('is what curl --http2 offers', async () => {
    const upstream = await echo()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const url = gateway.url + PATH
    const { stdout } = await run('curl', ['-s', '--http2', '-d', 'one', url, '--next', '-s', '--http2', url])
    expect(stdout).toBe('<POST one><GET >')
  })

  it.skipIf(!hasProgram('javac'))('is what the client of Java offers', async () => {
    const upstream = await echo()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const program = join(newFolder(), 'Client.java')
    writeFileSync(program, JAVA)
    const { stdout } = await run('java', [program, gateway.url + PATH])
    expect(stdout.trim().split('\n')).toEqual(['<GET >', '<POST one>', '<GET >'])
  })
})

const JAVA = `
import java.net.URI;
import java.net.http.*;

public class Client {
  public static void main(String[] args) throws Exception {
    var client = HttpClient.newHttpClient();
    var request = HttpRequest.newBuilder(URI.create(args[0]));
    for (var each : new HttpRequest[] {
      request.GET().build(), request.POST(HttpRequest.BodyPublishers.ofString("one")).build(), request.GET().build(),
    }) System.out.println(client.send(each, HttpResponse.BodyHandlers.ofString()).body());
  }
}
`
