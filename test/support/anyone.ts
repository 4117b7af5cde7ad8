/** A waiting call of a client like any other. */
export const ANYONE = {
  client: { name: 'anyone', weight: 1, share: 0, priority: 'normal' },
  priority: 'normal',
} as const
