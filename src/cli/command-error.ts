/** A failure that the person at the command line can correct. Only its message is shown, without a stack. */
export class CommandError extends Error {}
