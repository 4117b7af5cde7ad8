import Anthropic from '@anthropic-ai/sdk'
const { SLUICE_URL, SLUICE_KEY, RELEASE_URL } = process.env

// What is set:
const anthropic = new Anthropic({ apiKey: SLUICE_KEY, baseURL: `${SLUICE_URL}/anthropic` })
// And what is called:
const asked = { model: 'claude', max_tokens: 100, messages: [{ role: 'user', content: 'Say hello' }] }
const pieces = []
const stream = anthropic.messages.stream(asked)
stream.on('text', (text) => {
  pieces.push(text)
  // The vendor sends the rest only now: what is not streamed through hangs here.
  if (pieces.length === 1) void fetch(RELEASE_URL)
})
const { usage } = await stream.finalMessage()
// The gateway refuses it, because one call was all that it may let through. The SDK comes back when it is told to.
const { content } = await anthropic.messages.create(asked)
console.log(JSON.stringify([...pieces, usage.output_tokens, content[0].text]))
