import { WebClient } from '@slack/web-api'
const { SLUICE_URL, SLUICE_KEY } = process.env

// What is set:
const slack = new WebClient(SLUICE_KEY, { slackApiUrl: `${SLUICE_URL}/slack/` })
// And what is called:
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- no window's
const { ok, ts } = await slack.chat.postMessage({ channel: 'C1', text: 'Built & shipped' })
console.log(JSON.stringify([ok, ts]))
