import { type Sandbox, startSandbox } from '../sandbox/sandbox.ts'
import { DEMO_ACCOUNT, DEMO_KEY } from './demo.ts'
import { explainFailure, refuseSamePorts } from './start-failure.ts'
import { onStopSignal } from './stop-signal.ts'

const PORT_OPTIONS = '--port and --control-port'

/** Runs the sandbox upstream until it is told to stop. */
export async function sandbox(options: { host: string; port: number; controlPort: number }): Promise<void> {
  refuseSamePorts([options.port, options.controlPort], PORT_OPTIONS)
  const running = await startSandbox(options).catch((error: unknown) => explainFailure(error, PORT_OPTIONS))
  // The signals come first: as soon as a caller reads that it listens, it may send one.
  onStopSignal(() => running.stop())
  process.stdout.write(notice(running))
}

function notice({ url, controlUrl }: Sandbox): string {
  return `sandbox API on ${url}, controls on ${controlUrl}

It takes every key of the form pat.<account>.<id>.<secret>. To start a gateway in front of it:

  export HARNESS_BASE_URL=${url} HARNESS_ACCOUNT_ID=${DEMO_ACCOUNT} HARNESS_API_KEY=${DEMO_KEY}
  npx sluice start

To let half of the requests fail, until the second command:

  curl -X PUT ${controlUrl}/faults -d '{"status":503,"share":0.5}'
  curl -X DELETE ${controlUrl}/faults

`
}
