import { cloudflare } from './cloudflare.ts'
import { everruns } from './everruns.ts'
import { github } from './github.ts'
import { harness } from './harness.ts'
import { jira } from './jira.ts'
import { pagerduty } from './pagerduty.ts'
import type { Preset } from './preset.ts'
import { slack } from './slack.ts'

export const presets: Readonly<Record<string, Preset>> = {
  harness,
  everruns,
  github,
  slack,
  pagerduty,
  jira,
  cloudflare,
}
