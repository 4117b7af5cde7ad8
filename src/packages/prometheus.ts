/*
 * src/packages: packages of others, each without those of its parts that cost a start much and are never used.
 * It imports nothing of ours. Values of these packages are imported from here alone, which the linter checks.
 * A change here must prove that nothing of a package is missing that the gateway uses (test/server, test/system), and what a
 * start gains (npm run bench:start).
 */

import type * as Client from '@prometheus-io/client'
import { requireWithout } from './require-without.ts'

/** The client asks OpenTelemetry for the trace of a metric of the process, which here is part of none. */
const client = requireWithout('@prometheus-io/client', ['@opentelemetry/api']) as typeof Client

export const { Registry, Gauge, collectDefaultMetrics } = client
export type Registry = Client.Registry
export type Gauge<Label extends string = string> = Client.Gauge<Label>
