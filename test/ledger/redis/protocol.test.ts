import { describe, expect, it } from 'vitest'
import { readReply } from '../../../src/ledger/redis/reply.ts'
import { seededRandom } from '../../support/seeded-random.ts'

function bytesOf(numbers: readonly number[]): Buffer {
  const bytes = Buffer.alloc(numbers.length * 8)
  for (const [i, number] of numbers.entries()) bytes.writeDoubleBE(number, i * 8)
  return bytes
}

const REPLY = [1_795_253_741_201_000, 7, 1, 1, 5, 60_000_000, 95, -1, 0]

describe('a reply of the script', () => {
  it('is read as its numbers', () => {
    expect(readReply(bytesOf(REPLY))).toEqual(REPLY)
    expect(readReply(bytesOf([1_795_253_741_201_000, 7, -1]))).toEqual([1_795_253_741_201_000, 7, -1])
  })

  it('is none if a part of it is missing', () => {
    const bytes = bytesOf(REPLY)
    for (const length of [1, 7, 23, 25, 40, 71]) expect(() => readReply(bytes.subarray(0, length))).toThrow('garbled')
  })

  it('is none if other bytes stand in its place, wherever they begin', () => {
    for (let seed = 0; seed < 2_000; seed++) {
      const random = seededRandom(seed)
      const bytes = bytesOf(REPLY)
      const from = Math.floor(random() * 24)
      for (let i = from; i < bytes.length; i++) bytes[i] = random() * 256
      expect(() => readReply(bytes), String(seed)).toThrow('garbled')
    }
  })
})
