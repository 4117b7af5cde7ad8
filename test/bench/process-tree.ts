import { readFileSync } from 'node:fs'

/** Ticks of a second in which `/proc` counts processor time: USER_HZ, which is 100 on every architecture of Linux. */
const TICKS = 100

/** A process and all below it. Linux only. */
export function treeOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').match(/\d+/g) ?? []
  return [pid, ...children.flatMap((child) => treeOf(Number(child)))]
}

/** Processor time that they used so far, in milliseconds, in steps of 10 each. */
export function cpuMs(pids: readonly number[]): number {
  let ticks = 0
  for (const pid of pids) {
    // The name of the program may have blanks in it.
    const [, fields = ''] = /\) (.*)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? []
    const [user = 0, system = 0] = fields.split(' ').slice(11, 13).map(Number)
    ticks += user + system
  }
  return (ticks * 1_000) / TICKS
}

/** Processor time that children of this process used which have ended, in milliseconds, in steps of 10. */
export function endedChildrenMs(): number {
  const [, fields = ''] = /\) (.*)/s.exec(readFileSync('/proc/self/stat', 'utf8')) ?? []
  const [user = 0, system = 0] = fields.split(' ').slice(13, 15).map(Number)
  return ((user + system) * 1_000) / TICKS
}

/** How often their main threads went to sleep so far, and so were woken. */
export function sleepsOf(pids: readonly number[]): number {
  let sleeps = 0
  for (const pid of pids) {
    const [, count = 0] = /^voluntary_ctxt_switches:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
    sleeps += Number(count)
  }
  return sleeps
}

/** Resident memory of one process. */
export function residentKb(pid: number): number {
  const [, kb = 0] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kb)
}
