import { Pool } from 'undici'
const { SLUICE_URL, SLUICE_KEY } = process.env

// What is set:
const pool = new Pool(SLUICE_URL)
const headers = { authorization: `Bearer ${SLUICE_KEY}`, 'content-type': 'application/json' }
// And what is called:
const read = await pool.request({ path: '/any/things/1', method: 'GET', headers })
const { id, message } = await read.body.json()
if (read.statusCode !== 200) throw new Error(message)
const made = await pool.request({ path: '/any/things', method: 'POST', headers, body: '{"name":"a"}' })
const { name } = await made.body.json()
console.log(JSON.stringify([id, name]))
await pool.close()
