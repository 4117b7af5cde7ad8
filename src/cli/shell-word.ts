import { platform } from 'node:os'

/** A word of a command as the shell of this machine reads it. */
export function shellWord(word: string): string {
  // On Windows a backslash is a part of paths. Other shells drop it, and take the character behind it as it is.
  const isWindows = platform() === 'win32'
  const plain = isWindows ? /^[\w@%+=:,./\\-]+$/ : /^[\w@%+=:,./-]+$/
  if (plain.test(word)) return word
  return isWindows ? `"${word}"` : `'${word.replaceAll("'", String.raw`'\''`)}'`
}
