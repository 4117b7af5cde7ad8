import { describe, expect, it } from 'vitest'
import { UpstreamResponse } from '../../src/gateway/upstream-response.ts'
import type { ResponseControl } from '../../src/upstream/transport.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const PIECE = 65_536

/** A response of which pieces come at once, before anybody wants it, and what its connection was told. */
function arrived(pieces: number) {
  const told: string[] = []
  const control = {
    pause: () => told.push('pause'),
    resume: () => told.push('resume'),
    abort: () => told.push('abort'),
  } as unknown as ResponseControl
  const response = new UpstreamResponse(control, 200, {})
  const sent = Array.from({ length: pieces }, (_, i) => Buffer.alloc(PIECE, i))
  for (const piece of sent) response.onData(piece)
  const got: Buffer[] = []
  const receiver = {
    piece: (chunk: Buffer) => void got.push(chunk),
    end: () => undefined,
    breakOff: () => undefined,
    fail: () => undefined,
  }
  return { response, told, sent, got, receiver }
}

describe('a response that nobody has taken yet', () => {
  it('takes no more than 256 KiB and a piece of a body that comes fast, and passes all of it on in order', () => {
    const { response, told, sent, got, receiver } = arrived(5)
    expect(told).toEqual(['pause'])
    response.passTo(receiver)
    expect(told).toEqual(['pause', 'resume'])
    response.onData(Buffer.from('rest'))
    expect(Buffer.concat(got).equals(Buffer.concat([...sent, Buffer.from('rest')]))).toBe(true)
  })

  it('leaves a body alone that is no longer', () => {
    const { response, told, got, receiver } = arrived(4)
    response.passTo(receiver)
    expect(told).toEqual([])
    expect(got).toHaveLength(4)
  })

  it('stays paused for a receiver that takes no more of it for now', () => {
    const { response, told, receiver } = arrived(5)
    response.passTo({ ...receiver, piece: () => response.pause() })
    expect(told).not.toContain('resume')
    response.resume()
    expect(told.at(-1)).toBe('resume')
  })

  it('does not go on with one that has ended meanwhile', () => {
    const { response, told, receiver } = arrived(5)
    response.onEnd({})
    response.passTo(receiver)
    expect(told).toEqual(['pause'])
  })

  it('is broken off rather than drained if it is that long', () => {
    const { response, told } = arrived(5)
    response.drain(new SimulatedClock())
    expect(told).toContain('abort')
  })

  it('is broken off when it is drained for a second, unless it has ended by then', async () => {
    const clock = new SimulatedClock()
    const { response, told } = arrived(1)
    response.drain(clock)
    const ended = arrived(1)
    ended.response.drain(clock)
    await clock.advance(999)
    ended.response.onEnd({})
    expect(told).toEqual([])
    await clock.advance(1)
    expect([told, ended.told, clock.timers]).toEqual([['abort'], [], 0])
  })
})
