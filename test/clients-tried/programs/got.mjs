import got from 'got'
const { SLUICE_URL, SLUICE_KEY } = process.env

// What is set:
const things = got.extend({ prefixUrl: `${SLUICE_URL}/any`, headers: { authorization: `Bearer ${SLUICE_KEY}` } })
// And what is called:
const { id } = await things.get('things/1').json()
const made = await things.post('things', { json: { name: 'a' } }).json()
console.log(JSON.stringify([id, made.name]))
