import { Octokit } from '@octokit/rest'
const { SLUICE_URL, SLUICE_KEY } = process.env

// What is set:
const octokit = new Octokit({ auth: SLUICE_KEY, baseUrl: `${SLUICE_URL}/github` })
// And what is called:
const { data: repository } = await octokit.rest.repos.get({ owner: 'o', repo: 'r' })
const issues = await octokit.paginate(octokit.rest.issues.listForRepo, { owner: 'o', repo: 'r' })
const { data: made } = await octokit.rest.issues.create({ owner: 'o', repo: 'r', title: 'Late — again' })
console.log(JSON.stringify([repository.full_name, issues.map(({ title }) => title), made.title]))
