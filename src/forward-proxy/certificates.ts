/*
 * src/forward-proxy: the port for tools that know only HTTPS_PROXY: the local CA, and tunnels.
 * It imports what .oxlintrc.ts lists. Calls inside of a tunnel go to server, like those of any client.
 * A change here must prove that no tunnel reaches a private address, that the CA is good for no foreign host, and that the key
 * of a client never leaves (test/forward-proxy).
 */

import crypto from 'node:crypto'
import { isIP } from 'node:net'
import { AsnConvert, OctetString } from '@peculiar/asn1-schema'
import * as x509 from '@peculiar/asn1-x509'

/*
 * Only loaded where a certificate is made: the libraries take a while to load. All keys are of P-256, all signatures ECDSA with
 * SHA-256, which every client of TLS knows.
 */

const COMMON_NAME = '2.5.4.3'
const ECDSA_WITH_SHA256 = '1.2.840.10045.4.3.2'

const HOUR_MS = 3_600_000
const CA_MS = 365 * 24 * HOUR_MS
const LEAF_MS = 24 * HOUR_MS
/** The clocks of clients may be behind. */
const EARLIER_MS = HOUR_MS

/** Who signs, and with what. */
export interface Issuer {
  /** DER. */
  readonly certificate: Buffer
  readonly key: crypto.KeyObject
}

export interface MadeAuthority {
  /** PEM of the root, which clients trust. */
  readonly root: string
  /** PEM of the issuer below it, which signs for hosts, and its key. */
  readonly issuer: string
  readonly issuerKey: string
}

/**
 * Makes a CA that is good for these hosts, and names below them, and for nothing else: name constraints, critical, at both of
 * its certificates (RFC 5280 §4.2.1.10). The key of the root is forgotten here. Some clients ignore the
 * constraints of a trusted root. They obey those of the issuer below it, whose key is on disk and may be stolen.
 */
export function makeAuthority(hosts: readonly string[], now: number): MadeAuthority {
  const validity = validityOf(now, CA_MS)
  const root = newKeys()
  const name = nameOf(
    `Sluice local CA ${new Date(now).toISOString().slice(0, 10)} ${crypto.randomBytes(4).toString('hex')}`,
  )
  const signer = { name, ...root }
  const rootCertificate = certify({ ...signer, validity, extensions: caExtensions(hosts, 1) }, signer)
  const issuer = newKeys()
  const issuerCertificate = certify(
    {
      name: nameOf('Sluice local CA, for TLS servers'),
      publicKey: issuer.publicKey,
      validity,
      extensions: [
        ...caExtensions(hosts, 0),
        extension(x509.id_ce_extKeyUsage, new x509.ExtendedKeyUsage([x509.id_kp_serverAuth])),
      ],
    },
    signer,
  )
  return {
    root: pem(rootCertificate),
    issuer: pem(issuerCertificate),
    issuerKey: issuer.privateKey.export({ type: 'pkcs8', format: 'pem' }),
  }
}

/** A certificate for one host, for a day. `renewAt`: when half of that is over. */
export function makeLeaf(
  { certificate, key }: Issuer,
  host: string,
  now: number,
): { cert: string; key: string; renewAt: number } {
  const { publicKey, privateKey } = newKeys()
  const { subject } = AsnConvert.parse(certificate, x509.Certificate).tbsCertificate
  const leaf = {
    // Not the host: some clients judge a common name that could be one by the constraints for names, also of an address.
    name: nameOf('Sluice forward proxy'),
    publicKey,
    validity: validityOf(now, LEAF_MS),
    extensions: [
      extension(x509.id_ce_basicConstraints, new x509.BasicConstraints(), true),
      extension(x509.id_ce_keyUsage, new x509.KeyUsage(x509.KeyUsageFlags.digitalSignature), true),
      extension(x509.id_ce_extKeyUsage, new x509.ExtendedKeyUsage([x509.id_kp_serverAuth])),
      extension(
        x509.id_ce_subjectAltName,
        new x509.SubjectAlternativeName([
          new x509.GeneralName(isIP(host) === 0 ? { dNSName: host } : { iPAddress: host }),
        ]),
      ),
    ],
  }
  const signed = certify(leaf, { name: subject, publicKey: crypto.createPublicKey(key), privateKey: key })
  return {
    cert: pem(signed) + pem(certificate),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    renewAt: now + LEAF_MS / 2,
  }
}

/** The hosts for which a CA of ours is good, by its own certificate. */
export function hostsOf(certificate: Buffer): string[] {
  const { extensions = [] } = AsnConvert.parse(certificate, x509.Certificate).tbsCertificate
  const found = extensions.find(({ extnID }) => extnID === x509.id_ce_nameConstraints)
  if (found === undefined) return []
  const { permittedSubtrees = [] } = AsnConvert.parse(found.extnValue, x509.NameConstraints)
  return [...permittedSubtrees]
    .map(({ base }) => base.dNSName ?? base.iPAddress?.replace(/\/\d+$/, '') ?? '')
    .filter((host) => host !== NOBODY)
}

/** Stands for "no name at all", where only addresses are allowed (RFC 6761 §6.4). */
const NOBODY = 'nobody.invalid'

interface Keys {
  readonly publicKey: crypto.KeyObject
  readonly privateKey: crypto.KeyObject
}

interface Signer extends Keys {
  readonly name: x509.Name
}

interface Subject {
  readonly name: x509.Name
  readonly publicKey: crypto.KeyObject
  readonly validity: x509.Validity
  readonly extensions: readonly x509.Extension[]
}

function newKeys(): Keys {
  return crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' })
}

/** DER of a certificate for the subject. */
function certify({ name, publicKey, validity, extensions }: Subject, signer: Signer): Buffer {
  const algorithm = new x509.AlgorithmIdentifier({ algorithm: ECDSA_WITH_SHA256 })
  const authorityId = new x509.AuthorityKeyIdentifier({
    keyIdentifier: new x509.KeyIdentifier(keyId(signer.publicKey)),
  })
  const tbsCertificate = new x509.TBSCertificate({
    version: x509.Version.v3,
    serialNumber: serialNumber(),
    signature: algorithm,
    issuer: signer.name,
    validity,
    subject: name,
    subjectPublicKeyInfo: infoOf(publicKey),
    extensions: new x509.Extensions([
      ...extensions,
      extension(x509.id_ce_subjectKeyIdentifier, new x509.SubjectKeyIdentifier(keyId(publicKey))),
      extension(x509.id_ce_authorityKeyIdentifier, authorityId),
    ]),
  })
  const signed = Buffer.from(AsnConvert.serialize(tbsCertificate))
  const signatureValue = bytesOf(crypto.sign('sha256', signed, signer.privateKey))
  const certificate = new x509.Certificate({ tbsCertificate, signatureAlgorithm: algorithm, signatureValue })
  return Buffer.from(AsnConvert.serialize(certificate))
}

function caExtensions(hosts: readonly string[], pathLenConstraint: number): x509.Extension[] {
  return [
    extension(x509.id_ce_basicConstraints, new x509.BasicConstraints({ cA: true, pathLenConstraint }), true),
    extension(
      x509.id_ce_keyUsage,
      new x509.KeyUsage(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign),
      true,
    ),
    extension(x509.id_ce_nameConstraints, constraintsFor(hosts), true),
  ]
}

/**
 * RFC 5280 leaves a kind of name unbound if no subtree is of that kind. So there is always one for names and one for addresses.
 */
function constraintsFor(hosts: readonly string[]): x509.NameConstraints {
  // Every name is below the empty one (RFC 5280 §4.2.1.10).
  if (hosts.some((host) => /^\.*$/.test(host))) throw new Error('an empty host would make it good for all hosts')
  const addresses = hosts.filter((host) => isIP(host) !== 0)
  const names = hosts.filter((host) => isIP(host) === 0)
  const permitted = [
    ...(names.length === 0 ? [NOBODY] : names).map((dNSName) => new x509.GeneralName({ dNSName })),
    ...addresses.map((address) => new x509.GeneralName({ iPAddress: `${address}/${isIP(address) === 4 ? 32 : 128}` })),
  ]
  const none = ['0.0.0.0/0', '::/0'].map((iPAddress) => new x509.GeneralName({ iPAddress }))
  return new x509.NameConstraints({
    permittedSubtrees: subtrees(permitted),
    ...(addresses.length === 0 ? { excludedSubtrees: subtrees(none) } : {}),
  })
}

function subtrees(names: readonly x509.GeneralName[]): x509.GeneralSubtrees {
  return new x509.GeneralSubtrees(names.map((base) => new x509.GeneralSubtree({ base })))
}

function extension(extnID: string, value: object, critical = false): x509.Extension {
  return new x509.Extension({ extnID, critical, extnValue: new OctetString(AsnConvert.serialize(value)) })
}

function nameOf(commonName: string): x509.Name {
  const value = new x509.AttributeValue({ utf8String: commonName })
  return new x509.Name([
    new x509.RelativeDistinguishedName([new x509.AttributeTypeAndValue({ type: COMMON_NAME, value })]),
  ])
}

function validityOf(now: number, lastsMs: number): x509.Validity {
  const validity = new x509.Validity()
  validity.notBefore = new x509.Time(new Date(now - EARLIER_MS))
  validity.notAfter = new x509.Time(new Date(now + lastsMs))
  return validity
}

/** Positive, and not zero (RFC 5280 §4.1.2.2). */
function serialNumber(): ArrayBuffer {
  const bytes = crypto.randomBytes(16)
  bytes[0] = (bytes[0]! & 0x7f) | 0x40
  return bytesOf(bytes)
}

function infoOf(publicKey: crypto.KeyObject): x509.SubjectPublicKeyInfo {
  return AsnConvert.parse(publicKey.export({ type: 'spki', format: 'der' }), x509.SubjectPublicKeyInfo)
}

function keyId(publicKey: crypto.KeyObject): ArrayBuffer {
  return bytesOf(crypto.hash('sha1', Buffer.from(infoOf(publicKey).subjectPublicKey), 'buffer'))
}

function bytesOf(buffer: Buffer): ArrayBuffer {
  return new Uint8Array(buffer).buffer
}

function pem(certificate: Buffer): string {
  return new crypto.X509Certificate(certificate).toString()
}
