import { existsSync, realpathSync, statSync } from 'node:fs'
import { replaceFile } from '../files/replace-file.ts'
import { CommandError } from './command-error.ts'

/** Writes a configuration file as a whole. A link to it stays a link, and whoever may read it still may. Throws a `CommandError` if the system refuses. */
export function writeConfig(file: string, text: string): void {
  try {
    if (existsSync(file)) replaceFile(realpathSync(file), text, { like: statSync(file) })
    else replaceFile(file, text)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === undefined) throw error
    throw new CommandError(`${file}: can't be written: ${message}; nothing was changed`)
  }
}
