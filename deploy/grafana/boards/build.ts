import { writeFileSync } from 'node:fs'
import { dashboard } from './board.ts'
import { myClient } from './my-client.ts'
import { onCall } from './on-call.ts'
import { platform } from './platform.ts'

/** The files of deploy/grafana, by name, as they must be. */
export function builtBoards(): Record<string, string> {
  const boards = { 'on-call': onCall, platform, 'my-client': myClient }
  return Object.fromEntries(
    Object.entries(boards).map(([name, board]) => [
      `${name}.json`,
      `${JSON.stringify(dashboard(board), undefined, 2)}\n`,
    ]),
  )
}

/** Writes the boards: `npm run boards`. */
if (import.meta.main)
  for (const [name, text] of Object.entries(builtBoards())) writeFileSync(new URL(`../${name}`, import.meta.url), text)
