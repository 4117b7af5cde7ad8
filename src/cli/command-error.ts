/** A failure that the person at the command line can mend: only its message is shown. */
export class CommandError extends Error {}
