import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { temporaryFolder } from './temporary-folder.ts'

/** An authority, `ca.pem` and `ca.key`, and a certificate of it for each of the names, such as `localhost.pem` and `.key`. */
export interface Certificates {
  read(file: string): string
  remove(): void
}

export function makeCertificates(names: readonly string[], days = 2): Certificates {
  const folder = temporaryFolder('tls')
  const openssl = (command: string): void => {
    execFileSync('openssl', command.split(' '), { cwd: folder.path, stdio: 'pipe' })
  }
  openssl('req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority')
  for (const name of names) {
    const subject = `-subj /CN=${name} -addext subjectAltName=DNS:${name}`
    openssl(`req -newkey rsa:2048 -nodes -keyout ${name}.key -out ${name}.csr ${subject}`)
    const authority = '-CA ca.pem -CAkey ca.key -CAcreateserial'
    openssl(`x509 -req -in ${name}.csr ${authority} -out ${name}.pem -days ${days} -copy_extensions copy`)
  }
  return { read: (file) => readFileSync(join(folder.path, file), 'utf8'), remove: () => folder.remove() }
}
