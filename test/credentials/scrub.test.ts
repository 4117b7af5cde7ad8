import { describe, expect, it } from 'vitest'
import { formsOf } from '../../src/credentials/forms.ts'
import { EchoGuard, type Scrub } from '../../src/credentials/scrub.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const SECRET = 'pat.acct1234.tokenid.t0p+s3cr3t/value&"more'

function newGuard() {
  const clock = new SimulatedClock()
  const lines: object[] = []
  const logger = { warn: (line: object) => void lines.push(line) } as never
  const metrics = new Metrics()
  const guard = new EchoGuard({ upstream: 'u', account: 'a', metrics, clock, logger })
  const against = (exposed: string): Scrub => {
    const scrub = guard.against(exposed, 'id')!
    scrub.head({})
    return scrub
  }
  return { clock, lines, guard, against, metrics }
}

function through(scrub: Scrub, pieces: readonly Buffer[]): string {
  const out = pieces.map((piece) => scrub.piece(piece))
  return Buffer.concat([...out, scrub.rest()].filter((piece) => piece !== undefined)).toString()
}

const json = (text: string): string => JSON.stringify(text).slice(1, -1)
const base64 = (text: string): string => Buffer.from(text).toString('base64')
const echoes: [string, string, string][] = [
  ['plain', SECRET, SECRET],
  ['behind a scheme', `Bearer ${SECRET}`, SECRET],
  ['URL-encoded', SECRET, encodeURIComponent(SECRET)],
  [
    'URL-encoded in lower case',
    SECRET,
    encodeURIComponent(SECRET).replaceAll(/%../g, (escape) => escape.toLowerCase()),
  ],
  ['in JSON', SECRET, json(SECRET)],
  ['in Base64', SECRET, base64(SECRET)],
  ['in Base64 behind one byte', SECRET, base64(`x${SECRET}`)],
  ['in Base64 behind two bytes', SECRET, base64(`xy${SECRET}`)],
  ['in Base64 with its scheme', `Bearer ${SECRET}`, base64(`Bearer ${SECRET}`)],
  ['in Base64 of URLs', SECRET, Buffer.from(SECRET).toString('base64url')],
  ['the password of a Basic pair', `Basic ${base64(`me:${SECRET}`)}`, SECRET],
  ['a Basic pair', `Basic ${base64(`me:${SECRET}`)}`, base64(`me:${SECRET}`)],
]

describe('a credential that comes back', () => {
  it.each(echoes)('is scrubbed wherever the chunks end, byte for byte: %s', (_, exposed, echo) => {
    const { against } = newGuard()
    const body = Buffer.from(`{"you sent":"${echo}","again":"${echo}"}`)
    // What a byte of Base64 shares with a neighbour may stay: less than a byte of the secret.
    const shared = echo === SECRET || echo === exposed ? 0 : 8
    const expectHidden = (...pieces: Buffer[]): void => {
      const text = through(against(exposed), pieces)
      expect(text).toHaveLength(body.length)
      expect(text).toMatch(/^\{"you sent":"[^]*","again":"[^]*"\}$/)
      expect(text.match(/\*/g)!.length).toBeGreaterThanOrEqual(2 * (SECRET.length - shared))
    }
    for (let at = 0; at <= body.length; at++) expectHidden(body.subarray(0, at), body.subarray(at))
    expectHidden(...[...body].map((byte) => Buffer.from([byte])))
  })

  it('is scrubbed from every header, however often a field came', () => {
    const { against } = newGuard()
    const fields = { location: `https://x/?key=${encodeURIComponent(SECRET)}`, 'set-cookie': ['a=b', `k=${SECRET}`] }
    against(SECRET).head(fields)
    expect(fields.location).toMatch(/^https:\/\/x\/\?key=\*+$/)
    expect(fields['set-cookie']).toEqual(['a=b', `k=${'*'.repeat(SECRET.length)}`])
  })

  it('is counted once a response, and told to the log once an episode', async () => {
    const { against, clock, lines, metrics } = newGuard()
    const echo = Buffer.from(SECRET)
    for (let i = 0; i < 3; i++) through(against(SECRET), [echo, echo])
    expect(lines).toEqual([{ upstream: 'u', account: 'a', place: 'body', correlationId: 'id' }])
    await clock.advance(60_001)
    through(against(SECRET), [echo])
    expect(lines).toHaveLength(2)
    expect(await metrics.registry.metrics()).toContain('sluice_credentials_scrubbed_total{upstream="u",account="a"} 4')
  })
})

describe('what is no credential', () => {
  it('passes at once and as the same bytes, its end too where that begins none', () => {
    const { against } = newGuard()
    const scrub = against(SECRET)
    for (const text of ['data: pat.acct1234\n\n', '{"a":1}', 'pat.acct1234.tokenid.x ']) {
      const chunk = Buffer.from(text)
      expect(scrub.piece(chunk)).toBe(chunk)
    }
  })

  it('is held back no longer than it could be the beginning of one, and is all there at the end', () => {
    const { against } = newGuard()
    const scrub = against(SECRET)
    expect(scrub.piece(Buffer.from('so pat.acct'))?.toString()).toBe('so ')
    expect(scrub.piece(Buffer.from('us is'))?.toString()).toMatch(/^pat\.acctus i?s?$/)
    expect(through(against(SECRET), [Buffer.from('ends in pat.acct')])).toBe('ends in pat.acct')
  })

  it.each([
    ['compressed', { 'content-encoding': 'gzip' }],
    ['an image', { 'content-type': 'image/png' }],
    ['an archive', { 'content-type': 'application/zip' }],
  ])('is not looked into where it is %s', (_, fields) => {
    const { guard } = newGuard()
    const scrub = guard.against(SECRET, 'id')!
    scrub.head(fields)
    const chunk = Buffer.from(SECRET)
    expect(scrub.piece(chunk)).toBe(chunk)
  })

  it.each(['', 'short', 'Bearer short'])('is not looked for where it is too short to be one: "%s"', (exposed) => {
    expect(newGuard().guard.against(exposed, 'id')).toBeUndefined()
    expect(formsOf(exposed)).toEqual([])
  })
})
