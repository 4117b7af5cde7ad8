import { spawnSync } from 'node:child_process'

/** Programs without which some tests are skipped, and how a machine comes by them. The end of a run says which are missing. */
export const PROGRAMS: Readonly<Record<string, string>> = {
  'redis-server': 'for Redis topologies, outages and refusals, which REDIS_URL can not give: install redis-server',
  prometheus: 'install prometheus',
  promtool: 'install prometheus',
  openssl: 'install openssl',
  haproxy: 'install haproxy',
  curl: 'install curl',
  wget: 'install wget',
  script: 'install bsdutils or util-linux',
  java: 'install a JDK, such as default-jdk-headless',
  python3: 'install python3 and python3-pip',
  javac: 'install a JDK, such as default-jdk-headless',
  'docker-compose': 'install docker-compose',
}

export function hasProgram(name: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${name}`], { stdio: 'ignore' }).status === 0
}

/** Installs a Debian package, if we may; whether it could be tried. Its service is not started: only the program is wanted. */
export function installWithApt(name: string): boolean {
  if (process.getuid?.() !== 0 || !hasProgram('apt-get')) return false
  console.log(`installing ${name} with apt`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  spawnSync('apt-get', ['update', '-qq'], { stdio: 'inherit', env })
  spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', name], { stdio: 'inherit', env })
  return true
}
