import { anthropic } from './anthropic.ts'
import { azureOpenai } from './azure-openai.ts'
import { cloudflare } from './cloudflare.ts'
import { confluence } from './confluence.ts'
import { datadog } from './datadog.ts'
import { everruns } from './everruns.ts'
import { github } from './github.ts'
import { gitlab } from './gitlab.ts'
import { harness } from './harness.ts'
import { hubspot } from './hubspot.ts'
import { jira } from './jira.ts'
import { openai } from './openai.ts'
import { pagerduty } from './pagerduty.ts'
import type { Preset } from './preset.ts'
import { shopify } from './shopify.ts'
import { slack } from './slack.ts'

export const presets: Readonly<Record<string, Preset>> = {
  harness,
  everruns,
  github,
  slack,
  pagerduty,
  jira,
  cloudflare,
  confluence,
  gitlab,
  shopify,
  hubspot,
  datadog,
  openai,
  anthropic,
  'azure-openai': azureOpenai,
}
