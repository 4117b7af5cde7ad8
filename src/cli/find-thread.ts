import { parentPort, workerData } from 'node:worker_threads'
import { findConfig, foundIn } from '../config/find.ts'
import { ConfigError } from '../config/problem.ts'
import { allWarnings } from '../config/warnings.ts'
import { stateOf } from '../files/watch.ts'
import { type Answer, packed, type Wanted } from './find-apart.ts'

/** Finds the configuration that the main thread wants, and ends. At any other error it throws: the main thread then finds it itself. */
export async function findForMainThread(): Promise<void> {
  try {
    const wanted = workerData as Wanted
    const onFile = (file: string): void => tell({ reads: file, state: stateOf(file) })
    const found = 'text' in wanted ? await foundIn(wanted) : await findConfig(wanted.file, { onFile })
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
