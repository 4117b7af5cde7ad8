import axios from 'axios'
const { SLUICE_URL, SLUICE_KEY } = process.env

// What is set:
const jira = axios.create({
  baseURL: `${SLUICE_URL}/jira/rest/api/3`,
  auth: { username: 'me@example.com', password: SLUICE_KEY },
})
// And what is called:
const { data: issue } = await jira.get('/issue/KEY-1')
const { data: made, status } = await jira.post('/issue', { fields: { summary: 'Späte Lieferung' } })
console.log(JSON.stringify([issue.key, made.fields.summary, status]))
