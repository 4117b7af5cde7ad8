import { Registry } from '@prometheus-io/client'
import pino from 'pino'
import { expect, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { WebhookCounts } from '../../src/webhooks/counts.ts'
import { Delivery } from '../../src/webhooks/delivery.ts'
import type { Message } from '../../src/webhooks/message.ts'
import { harnessConfig, startUpstream } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

/** A receiver that answers when it is told to. */
async function setUp() {
  const answers: (() => void)[] = []
  const receiver = await startUpstream((_, response) => void answers.push(() => response.end()))
  const webhooks = { ops: { url: receiver.url } }
  const config = checkConfig(harnessConfig('http://127.0.0.1:1', {}, { webhooks }), 'test').webhooks['ops']!
  const counts = new WebhookCounts(new Registry())
  const failed = (): number => counts.of('ops').failed.values('')[0]!.value
  const delivery = new Delivery({
    name: 'ops',
    config,
    access: undefined,
    clock: new SimulatedClock(),
    lookup: undefined,
    logger: pino({ level: 'silent' }),
    random: () => 0,
    counts,
  })
  onTestFinished(() => delivery.close())
  const seen = () =>
    receiver.seen.map(({ body }) => {
      const { status, key, summary } = JSON.parse(body) as Message
      return `${status} ${key} ${summary}`
    })
  const add = (status: Message['status'], key: string, summary = '') =>
    delivery.add({ status, key, summary } as Message)
  /** Answers each message until so many were seen. */
  const until = async (count: number) => {
    for (let i = 0; i < count; i++) {
      await expect.poll(() => answers.length).toBeGreaterThan(i)
      answers[i]!()
    }
  }
  return { add, seen, answers, until, config, failed }
}

it('a receiver that was told of something is told that it is over, whatever waits meanwhile', async () => {
  const { add, seen, answers, until } = await setUp()
  add('firing', 'x', '80 %')
  await until(1)
  add('firing', 'other')
  await expect.poll(() => answers.length).toBe(2)
  add('firing', 'x', '95 %')
  add('resolved', 'x')
  await until(3)
  expect(seen()).toEqual(['firing x 80 %', 'firing other ', 'resolved x '])
})

it('a receiver is told once that something is over, although it came back and went while that waited', async () => {
  const { add, seen, answers, until } = await setUp()
  add('firing', 'x')
  await until(1)
  add('firing', 'other')
  await expect.poll(() => answers.length).toBe(2)
  add('resolved', 'x')
  add('firing', 'x')
  add('resolved', 'x')
  add('firing', 'last')
  await until(4)
  expect(seen()).toEqual(['firing x ', 'firing other ', 'resolved x ', 'firing last '])
})

it('a receiver is not told of what came and went before it could be', async () => {
  const { add, seen, answers, until } = await setUp()
  add('firing', 'other')
  await expect.poll(() => answers.length).toBe(1)
  add('firing', 'x', '80 %')
  add('firing', 'x', '95 %')
  add('resolved', 'x')
  add('firing', 'last')
  await until(2)
  expect(seen()).toEqual(['firing other ', 'firing last '])
})

it('a receiver is sent nothing, and nothing else ends, while a new value of its url is no URL of HTTP', async () => {
  const { add, seen, until, config, failed } = await setUp()
  const { url } = config
  const right = url.reveal()
  for (const wrong of ['localhost:9000/hook', 'ftp://localhost/hook', 'hook']) {
    expect(url.whyNot(wrong)).toMatch(/^the new value must be an http/)
    url.replace(wrong)
    add('firing', wrong)
  }
  await expect.poll(failed).toBe(3)
  url.replace(right)
  add('firing', 'x')
  await until(1)
  expect(seen()).toEqual(['firing x '])
})
