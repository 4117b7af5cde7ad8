import type { RouteRule } from '../../routing/route.ts'
import type { RouteEntry } from '../../routing/route-table.ts'
import type { Preset } from './preset.ts'

/**
 * Calls a minute for each method, by tier. The page says "1+" and so on: Slack may or may not tolerate bursts above
 * that.
 */
const PER_MINUTE = { tier1: 1, tier2: 20, tier3: 50, tier4: 100 }
type Tier = keyof typeof PER_MINUTE

/**
 * The Slack Web API. Limits apply to each method, app and workspace, so an account is one token of one app in one
 * workspace: https://docs.slack.dev/apis/web-api/rate-limits. The tier of a method is on its page under
 * https://docs.slack.dev/reference/methods. Methods that are not listed share one allowance of tier 2, which most
 * methods have.
 *
 * `chat.postMessage` allows about one message a second and channel, and some hundreds a minute in the workspace. The
 * channel is in the body, which is not read here, so the limit is one a second in all: raise it if you write to many
 * channels. An app that is sold outside the Slack Marketplace has tier 1 for `conversations.history` and `.replies`.
 *
 * Every method can be called by GET and by POST, so its name decides whether a call may be retried.
 */
export const slack: Preset = {
  // https://docs.slack.dev/reference/methods/auth.test
  harmlessCall: '/auth.test',
  config: {
    requestIdHeaders: ['x-slack-req-id'],
    url: 'https://slack.com/api',
    limits: {
      ...Object.fromEntries(
        Object.entries(PER_MINUTE).map(([tier, requests]) => [tier, [{ requests, window: '60s', scope: 'route' }]]),
      ),
      message: [{ requests: 1, window: '1s', scope: 'route' }],
    },
    // The limiter refuses requests before they are carried out: https://docs.slack.dev/apis/web-api/rate-limits
    throttle: { retry: 'any' },
    credentialHeader: 'authorization',
    errors: 'slack',
  },
  routes: () => [
    ...Object.entries(METHODS).flatMap(([tier, names]) => namesIn(names).map((name) => entryOf(name, tier))),
    entryOf('chat.postMessage', 'message'),
  ],
  // A method that is not listed may change something, whatever its name, and by GET, too.
  classify: () => ({ class: 'tier2', retry: 'unsafe', countedAs: '*' }),
}

/** `chat: delete update` is `chat.delete` and `chat.update`; `users: profile.get` is `users.profile.get`. */
function namesIn(text: string): string[] {
  return text
    .trim()
    .split('\n')
    .flatMap((line) => {
      const [family = '', methods = ''] = line.split(': ')
      return methods.split(' ').map((method) => `${family}.${method}`)
    })
}

/** The last words of methods that change nothing. */
const READING =
  /(?:^|\.)(?:list[A-Za-z]*|get(?!UploadURL)[A-Za-z]*|lookup[A-Za-z]*|info|teamInfo|userInfo|history|replies|members|conversations|search|identity|test|validate|accessLogs|billableInfo|integrationLogs)$|^search\./

function entryOf(name: string, tier: string): RouteEntry {
  return { methods: ['GET', 'POST'], path: `/${name}`, rule: ruleOf(name, tier) }
}

function ruleOf(name: string, tier: string): RouteRule {
  return { class: tier, retry: READING.test(name) ? 'safe' : 'unsafe' }
}

const METHODS: Record<Tier, string> = {
  tier1: `
admin: apps.uninstall teams.create usergroups.addChannels users.unsupportedVersions.export
admin.conversations: restrictAccess.removeGroup
apps: connections.open manifest.create manifest.delete manifest.update uninstall
conversations: acceptSharedInvite approveSharedInvite declineSharedInvite listConnectInvites
rtm: connect start
team: externalTeams.disconnect
tooling: tokens.rotate`,
  tier2: `
admin: analytics.getFile functions.list roles.addAssignments roles.removeAssignments
admin.apps: approve approved.list clearResolution config.lookup requests.cancel requests.list restrict restricted.list
admin.barriers: create delete list update
admin.conversations: archive bulkArchive bulkDelete bulkMove convertToPrivate convertToPublic create delete disconnectShared ekm.listOriginalConnectedChannelInfo getConversationPrefs getCustomRetention getTeams invite lookup removeCustomRetention rename restrictAccess.addGroup restrictAccess.listGroups search setConversationPrefs setCustomRetention setTeams unarchive
admin.emoji: add addAlias list remove rename
admin.inviteRequests: approve approved.list denied.list deny list
admin.teams: settings.setDefaultChannels settings.setDescription settings.setDiscoverability settings.setIcon
admin.usergroups: addTeams listChannels removeChannels
admin.users: assign invite remove session.invalidate session.list session.reset session.resetBulk setAdmin setExpiration setOwner setRegular
admin.workflows: collaborators.add collaborators.remove permissions.lookup search unpublish
auth: teams.list
bookmarks: add edit remove
calls: add end info participants.add participants.remove update
canvases: create
chat: startStream stopStream
conversations: archive canvases.create close create externalInvitePermissions.set inviteShared list rename requestSharedInvite.approve requestSharedInvite.deny requestSharedInvite.list setPurpose setTopic unarchive
dnd: endDnd endSnooze setSnooze teamInfo
emoji: list
files: comments.delete remote.add remote.info remote.list remote.remove remote.share remote.update upload
migration: exchange
pins: add list remove
reactions: list remove
reminders: add complete delete info list
search: all files messages
slackLists: create download.start items.delete items.deleteMultiple items.info items.list update
stars: add remove
team: accessLogs billableInfo externalTeams.list integrationLogs
usergroups: create disable enable list update users.list users.update
users: conversations deletePhoto discoverableContacts.lookup list setActive setPhoto setPresence
workflows: featured.add featured.list featured.remove featured.set stepCompleted stepFailed updateStep`,
  tier3: `
admin: apps.activities.list apps.config.set functions.permissions.lookup functions.permissions.set roles.listAssignments users.list
admin.teams: admins.list list owners.list settings.info settings.setName
apps: manifest.export manifest.validate
assistant: threads.setSuggestedPrompts threads.setTitle
auth: revoke
bookmarks: list
bots: info
canvases: access.delete access.set delete edit sections.lookup
chat: delete deleteScheduledMessage meMessage scheduleMessage scheduledMessages.list unfurl update
conversations: history info invite join kick leave mark open replies
dnd: info
files: delete list revokePublicURL sharedPublicURL
functions: completeError completeSuccess
oauth: v2.exchange
openid: connect.userInfo
reactions: add get
slackLists: access.delete access.set items.create items.update
stars: list
team: billing.info info preferences.list profile.get
users: getPresence identity lookupByEmail profile.set`,
  tier4: `
admin: auth.policy.assignEntities auth.policy.getEntities auth.policy.removeEntities users.getExpiration
admin.users: session.clearSettings session.getSettings session.setSettings
api: test
apps: event.authorizations.list
auth: test
chat: appendStream getPermalink postEphemeral
conversations: members
dialog: open
files: completeUploadExternal getUploadURLExternal info
oauth: access token v2.access
openid: connect.token
slackLists: download.get
users: info profile.get
views: open publish push update`,
}
