import { once } from 'node:events'
import { connect } from 'node:net'
import { Worker } from 'node:worker_threads'
import { describe, expect, it, onTestFinished } from 'vitest'
import { clockOf, systemClock } from '../../src/time/clock.ts'

/** A machine whose clocks are moved by hand. */
function machineAt(uptimeMs: number, suspendedMs = 0) {
  const at = { awakeMs: 20, wallMs: Date.UTC(2026, 10, 21), uptimeMs, suspendedMs }
  const machine = {
    awakeMs: () => at.awakeMs,
    wallMs: () => at.wallMs,
    uptimeMs: () => at.uptimeMs,
    uptimeAwakeMs: () => at.uptimeMs - at.suspendedMs,
    boot: 'this',
  }
  return {
    machine,
    pass(ms: number): void {
      at.awakeMs += ms
      at.wallMs += ms
      at.uptimeMs += ms
    },
    suspend(ms: number): void {
      at.suspendedMs += ms
      at.wallMs += ms
      at.uptimeMs += ms
    },
    setWall(byMs: number): void {
      at.wallMs += byMs
    },
  }
}

describe('the clock of a machine', () => {
  it.each([600_000, -600_000])(
    'counts durations on when the wall clock is set by %i ms, and tells moments by it',
    (step) => {
      const { machine, pass, setWall } = machineAt(60_000)
      const clock = clockOf(machine)
      const [now, wall] = [clock.now(), clock.wall()]
      pass(1_000)
      setWall(step)
      expect(clock.now() - now).toBe(1_000)
      expect(clock.wall() - wall).toBe(1_000 + step)
      pass(1_000)
      expect(clock.now() - now).toBe(2_000)
    },
  )

  it('counts the time of a suspend, from a millisecond after it on', () => {
    const { machine, pass, suspend } = machineAt(60_000)
    const clock = clockOf(machine)
    const now = clock.now()
    pass(1_000)
    expect(clock.now() - now).toBe(1_000)
    suspend(600_000)
    pass(1)
    expect(clock.now() - now).toBe(601_001)
    pass(1_000)
    expect(clock.now() - now).toBe(602_001)
  })

  it('never goes back when a suspend is noticed', () => {
    const { machine, pass, suspend } = machineAt(60_000)
    const clock = clockOf(machine)
    let last = clock.now()
    for (let step = 0; step < 20; step++) {
      if (step === 7) suspend(5_000)
      pass(0.25)
      const now = clock.now()
      expect(now).toBeGreaterThan(last)
      last = now
    }
    expect(clock.now()).toBe(clockOf(machine).now())
  })

  it('tells a suspend during which the wall clock was set from one during which it was not', () => {
    const { machine, pass, suspend, setWall } = machineAt(60_000)
    const clock = clockOf(machine)
    const now = clock.now()
    suspend(600_000)
    setWall(-30_000)
    pass(1)
    expect(clock.now() - now).toBe(600_001)
  })

  it('is the same for two processes of one start of the machine', () => {
    const { machine, pass, setWall } = machineAt(60_000)
    const first = clockOf(machine)
    pass(5_000)
    setWall(30_000)
    const second = clockOf({ ...machine, awakeMs: () => machine.awakeMs() - 5_000 })
    expect(second.now()).toBe(first.now())
    expect([first.boot, second.boot]).toEqual(['this', 'this'])
  })

  it('does not claim to be the same where the machine was suspended, which is known to a hundredth of a second only', () => {
    expect(clockOf(machineAt(60_000, 10_000).machine).boot).toBeUndefined()
  })

  it('is no time of day, so that whoever takes it for one sees that at once', () => {
    expect(new Date(systemClock.now()).getUTCFullYear()).toBeLessThan(2000)
    expect(Math.abs(systemClock.wall() - Date.now())).toBeLessThan(60_000)
  })

  it('wakes whoever waits after what has arrived by then was read, and not if that cancels it', async () => {
    const socket = connect(await startEcho())
    await once(socket, 'connect')
    const order: string[] = []
    const cancelled = systemClock.schedule(10, () => void order.push('cancelled'))
    socket.on('data', () => {
      order.push('read')
      cancelled.cancel()
    })
    const woken = new Promise<void>((resolve) => {
      systemClock.schedule(10, () => {
        order.push('woken')
        resolve()
      })
    })
    socket.write('x')
    await new Promise(setImmediate)
    // This process stands still; what answers is another thread.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_000)
    await woken
    expect(order).toEqual(['read', 'woken'])
    socket.destroy()
  })
})

/** The port of a server in another thread that sends back what it gets. */
async function startEcho(): Promise<number> {
  const code = `const server = require('net').createServer((socket) => socket.pipe(socket).on('error', () => undefined))
    server.listen(0, '127.0.0.1', () => require('worker_threads').parentPort.postMessage(server.address().port))`
  const worker = new Worker(code, { eval: true })
  onTestFinished(async () => void (await worker.terminate()))
  const [port] = (await once(worker, 'message')) as [number]
  return port
}
