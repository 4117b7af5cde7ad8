/**
 * `node --import` this with CLOCK_SET in milliseconds: a process on a machine whose wall clock is wrong by that much, until
 * it is sent SIGUSR2, as if NTP set it right. What counts durations is left alone, as it is then.
 */
const RealDate = Date
let setMs = Number(process.env['CLOCK_SET'] ?? 0)
process.on('SIGUSR2', () => void (setMs = 0))

const { timeOrigin } = performance
Object.defineProperty(performance, 'timeOrigin', { value: timeOrigin + setMs })

globalThis.Date = class extends RealDate {
  constructor(...args: [] | [string | number | Date]) {
    if (args.length === 0) super(RealDate.now() + setMs)
    else super(...(args as [string]))
  }

  static override now(): number {
    return RealDate.now() + setMs
  }
} as DateConstructor
