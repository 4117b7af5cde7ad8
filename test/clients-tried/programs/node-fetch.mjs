import fetch from 'node-fetch'
const { SLUICE_URL, SLUICE_KEY } = process.env

// What is set:
const things = `${SLUICE_URL}/any/things`
const headers = { authorization: `Bearer ${SLUICE_KEY}`, 'content-type': 'application/json' }
// And what is called:
const read = await fetch(`${things}/1`, { headers })
const { id, message } = await read.json()
if (!read.ok) throw new Error(message)
const made = await fetch(things, { method: 'POST', headers, body: JSON.stringify({ name: 'a' }) })
const { name } = await made.json()
console.log(JSON.stringify([id, name]))
