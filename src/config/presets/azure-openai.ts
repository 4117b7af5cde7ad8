import type { RouteEntry } from '../../routing/route-table.ts'
import { modelRoutes } from './openai.ts'
import type { Preset } from './preset.ts'

/** What Azure adds to its count as a request arrives. See `azureOpenai`. */
const ESTIMATE = {
  reserve: {
    values: {
      most: { body: ['/max_completion_tokens', '/max_tokens', '/max_output_tokens'], default: 4_096 },
      best: { body: ['/best_of', '/n'], default: 1 },
    },
    formula: 'bytes / 4 + most * best',
    most: 100_000,
  },
}

/** The limits of one deployment with 100 units of capacity, which are 100,000 tokens and 600 requests a minute. */
const limitsOf = (scope: string): object[] => [
  { requests: 10, window: '1s', scope },
  { requests: 600, window: '60s', scope },
  { name: 'tokens', requests: 100_000, window: '60s', scope, cost: ESTIMATE },
]

/**
 * Azure OpenAI: set `url` to the resource, such as https://name.openai.azure.com, and `limits` to what your deployments have.
 * https://learn.microsoft.com/azure/ai-foundry/openai/how-to/quota (of 31 July 2025) says:
 *
 * - Each deployment has tokens a minute (TPM) and requests a minute (RPM) by its capacity. A unit is 1,000 TPM and 6 RPM for older
 *   chat models, and other numbers for the o series, which stand there.
 * - "As each request is received, Azure OpenAI computes an estimated max processed-token count", of the prompt, max_tokens and
 *   best_of. It is added to a count "that is reset each minute". So a call costs what its request says, and not its outcome. How
 *   characters become tokens is not said; here it is four bytes. A request without `max_tokens` is taken for 4,096: what Azure takes it
 *   for is not said. That `n` multiplies as `best_of` does is not said either.
 * - The rate of requests is looked at "over a small period of time, typically 1 or 10 seconds". So a second has a sixtieth of a minute.
 *
 * Where deployments are named by the body (`/openai/v1`), they are counted by that. A deployment that is called in both ways counts
 * twice, so use one of them.
 *
 * Headers are `x-ratelimit-{limit,remaining}-{requests,tokens}`, `retry-after` and `retry-after-ms`:
 * https://github.com/openai/openai-dotnet/issues/838, https://github.com/openai/openai-python/issues/937.
 */
export const azureOpenai: Preset = {
  // https://learn.microsoft.com/azure/ai-foundry/openai/reference-preview-latest#list-models
  harmlessCall: '/openai/v1/models',
  config: {
    requestIdHeaders: ['apim-request-id', 'x-ms-request-id'],
    limits: { deployment: limitsOf('{deployment}'), tokens: limitsOf('/model'), read: [], write: [] },
    // The limiter counts a request as it is received, by the page above.
    throttle: { retry: 'any' },
    // https://learn.microsoft.com/azure/ai-foundry/openai/reference#authentication
    credentialHeader: 'api-key',
    errors: 'openai',
  },
  routes: () => [...modelRoutes('/openai/deployments/{deployment}').map(ofDeployment), ...modelRoutes('/openai/v1')],
}

function ofDeployment({ rule, ...entry }: RouteEntry): RouteEntry {
  return { ...entry, rule: { ...rule, class: 'deployment' } }
}
