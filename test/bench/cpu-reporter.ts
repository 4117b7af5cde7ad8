/** Loaded before a benchmarked program: tells its parent the processor time it used so far, in microseconds. */
process.on('message', (message) => {
  if (message !== 'cpu') return
  const { user, system } = process.cpuUsage()
  process.send?.({ cpuMicros: user + system })
})
process.channel?.unref()
