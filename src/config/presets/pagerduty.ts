import { classifyByMethod } from '../../routing/route.ts'
import { posts, type Preset } from './preset.ts'

/**
 * The PagerDuty REST API: 960 requests a minute for each account key, for each user with all keys together, or for each
 * app and account: https://support.pagerduty.com/main/docs/rest-api-rate-limits. All keys of one user are one
 * credential to PagerDuty but several here, so use only one of them. The Events API is another host with other limits.
 */
export const pagerduty: Preset = {
  // https://developer.pagerduty.com/api-reference/: a GET of any token
  harmlessCall: '/abilities',
  config: {
    requestIdHeaders: ['x-request-id'],
    url: 'https://api.pagerduty.com',
    limits: { all: [{ requests: 960, window: '60s', scope: 'credential' }], read: [], write: [] },
    // The limiter refuses requests before they are carried out: https://support.pagerduty.com/main/docs/rest-api-rate-limits
    throttle: { retry: 'any' },
    credentialHeader: 'authorization',
    errors: 'pagerduty',
  },
  proposedCache: [
    {
      paths: /^\/(?:abilities|escalation_policies|priorities|schedules|services|teams|users|vendors)(?:\/|$)/,
      rule: { private: true, freshFor: 30_000 },
    },
  ],
  routes: () =>
    posts(
      ANALYTICS.map((path) => `/analytics/${path}`),
      { class: 'read', retry: 'safe' },
    ),
  classify(method, path) {
    if (method === 'POST' && path.startsWith('/analytics/')) return { class: 'read' }
    return classifyByMethod(method)
  },
}

/** They are requested by POST: https://developer.pagerduty.com/api-reference/, Analytics. */
const ANALYTICS = [
  'metrics/incidents/all',
  'metrics/incidents/escalation_policies',
  'metrics/incidents/escalation_policies/all',
  'metrics/incidents/services',
  'metrics/incidents/services/all',
  'metrics/incidents/teams',
  'metrics/incidents/teams/all',
  'metrics/pd_advance_usage/features',
  'metrics/responders/all',
  'metrics/responders/teams',
  'metrics/users/all',
  'raw/incidents',
  'raw/responders/{responder_id}/incidents',
]
