import OpenAI from 'openai'
const { SLUICE_URL, SLUICE_KEY, RELEASE_URL } = process.env

// What is set:
const openai = new OpenAI({ apiKey: SLUICE_KEY, baseURL: `${SLUICE_URL}/openai/v1` })
// And what is called:
const messages = [{ role: 'user', content: 'Say hello' }]
const stream = await openai.chat.completions.create({ model: 'gpt-5', messages, stream: true })
const pieces = []
for await (const { choices } of stream) {
  pieces.push(choices[0].delta.content)
  // The vendor sends the rest only now: what is not streamed through hangs here.
  if (pieces.length === 1) await fetch(RELEASE_URL)
}
// The gateway refuses it, because one call was all that it may let through. The SDK comes back when it is told to.
const { choices } = await openai.chat.completions.create({ model: 'gpt-5', messages })
console.log(JSON.stringify([...pieces, choices[0].message.content]))
