import { execFileSync } from 'node:child_process'
import { rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { newFolder } from './gateway.ts'

/** Whether this process may mount one: root may, where the machine lets it. */
export const hasSmallDisks = ((): boolean => {
  try {
    execFileSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { stdio: 'ignore' })
    return process.getuid?.() === 0
  } catch {
    return false
  }
})()

/** A disk of a few pages that can be filled to the last byte, gone when the test is finished. */
export class SmallDisk {
  readonly path = newFolder()

  constructor() {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128k', 'tmpfs', this.path])
    onTestFinished(() => void execFileSync('umount', ['--lazy', this.path]))
  }

  fill(): void {
    const { bfree, bsize } = statfsSync(this.path)
    writeFileSync(this.#filler, Buffer.alloc(bfree * bsize))
  }

  free(): void {
    rmSync(this.#filler, { force: true })
  }

  get #filler(): string {
    return join(this.path, 'filler')
  }
}
