import { parentPort, workerData } from 'node:worker_threads'
import { configOf, findConfig, type FoundConfig } from '../config/find.ts'
import { ConfigError } from '../config/problem.ts'
import { allWarnings } from '../config/warnings.ts'
import { stateOf } from '../files/watch.ts'
import { type Answer, packed, type Wanted } from './find-apart.ts'

/** Finds the configuration that the main thread wants, and ends. What is no problem of the configuration ends it as an error. */
export async function findForMainThread(): Promise<void> {
  try {
    const found = await find(workerData as Wanted, (file) => tell({ reads: file, state: stateOf(file) }))
    tell({ found: found && packed({ ...found, warnings: allWarnings(found) }) })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    const { source, problems } = error
    tell({ source, problems })
  }
}

function tell(answer: Answer): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has none
  parentPort!.postMessage(answer)
}

async function find(wanted: Wanted, onFile: (file: string) => void): Promise<FoundConfig | undefined> {
  if ('file' in wanted) return findConfig(wanted.file, { onFile })
  const { source, text } = wanted
  return { config: await configOf(source, text), source, text }
}
