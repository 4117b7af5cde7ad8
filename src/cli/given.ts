import type { Command } from 'commander'
import { CommandError } from './command-error.ts'

/**
 * Refuses, for all commands, an option that is given twice, of which one value would be lost (no option is a list), and an empty text, which a
 * shell makes of a variable that is not set.
 */
export function refuseLost(program: Command): void {
  program.hook('preAction', (_, { registeredArguments, processedArgs }) => {
    for (const [i, argument] of registeredArguments.entries())
      if (processedArgs[i] === '') throw new CommandError(`${argument.name()} is empty`)
  })
  watchOptions(program)
}

function watchOptions(command: Command): void {
  for (const option of command.options.filter(({ required }) => required)) {
    let isGiven = false
    command.on(`option:${option.name()}`, (value: string) => {
      if (value === '') throw new CommandError(`${option.long} is empty`)
      if (isGiven) throw new CommandError(`${option.long} is given twice: one value would have no effect`)
      isGiven = true
    })
  }
  for (const below of command.commands) watchOptions(below)
}
