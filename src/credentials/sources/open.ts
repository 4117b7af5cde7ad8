import type { Clock } from '../../clock.ts'
import type { Sources } from '../follow.ts'
import { FileSource } from './files.ts'

/** The sources whose values can change while the program runs. */
export function openSources(clock: Clock): Sources {
  return new Map([['file', new FileSource(clock)]])
}
