import { AzureOpenAI } from 'openai'
const { SLUICE_URL, SLUICE_KEY } = process.env

// What is set:
const azure = new AzureOpenAI({ apiKey: SLUICE_KEY, endpoint: `${SLUICE_URL}/azure`, apiVersion: '2024-10-21' })
// And what is called:
const messages = [{ role: 'user', content: 'Say hello' }]
const { choices } = await azure.chat.completions.create({ model: 'gpt-5', messages })
console.log(JSON.stringify(choices[0].message.content))
