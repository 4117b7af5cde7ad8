/*
 * src/forward-proxy: the port for tools that know only HTTPS_PROXY: the local CA, and tunnels.
 * It imports what .oxlintrc.ts lists. Calls inside of a tunnel go to server, like those of any client.
 * A change here must prove that no tunnel reaches a private address, that the CA is good for no foreign host, and that the key
 * of a client never leaves (test/forward-proxy).
 */

import {
  createPublicKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto'
import { isIP } from 'node:net'
import { AsnConvert, OctetString } from '@peculiar/asn1-schema'
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate,
  ExtendedKeyUsage,
  Extension,
  Extensions,
  GeneralName,
  GeneralSubtree,
  GeneralSubtrees,
  id_ce_authorityKeyIdentifier,
  id_ce_basicConstraints,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_nameConstraints,
  id_ce_subjectAltName,
  id_ce_subjectKeyIdentifier,
  id_kp_serverAuth,
  KeyIdentifier,
  KeyUsage,
  KeyUsageFlags,
  Name,
  NameConstraints,
  RelativeDistinguishedName,
  SubjectAlternativeName,
  SubjectKeyIdentifier,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Time,
  Validity,
  Version,
} from '@peculiar/asn1-x509'

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
  readonly key: KeyObject
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
 * its certificates (RFC 5280 §4.2.1.10). The key of the root is forgotten here. So what is on disk, if stolen, is bound by
 * the issuer's constraints, which also those clients heed that ask nothing of a root that they trust.
 */
export function makeAuthority(hosts: readonly string[], now: number): MadeAuthority {
  const validity = validityOf(now, CA_MS)
  const root = newKeys()
  const name = nameOf(`Sluice local CA ${new Date(now).toISOString().slice(0, 10)} ${randomBytes(4).toString('hex')}`)
  const signer = { name, ...root }
  const rootCertificate = certify({ ...signer, validity, extensions: caExtensions(hosts, 1) }, signer)
  const issuer = newKeys()
  const issuerCertificate = certify(
    {
      name: nameOf('Sluice local CA, for TLS servers'),
      publicKey: issuer.publicKey,
      validity,
      extensions: [...caExtensions(hosts, 0), extension(id_ce_extKeyUsage, new ExtendedKeyUsage([id_kp_serverAuth]))],
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
  const { subject } = AsnConvert.parse(certificate, Certificate).tbsCertificate
  const leaf = {
    // Not the host: some clients judge a common name that could be one by the constraints for names, also of an address.
    name: nameOf('Sluice forward proxy'),
    publicKey,
    validity: validityOf(now, LEAF_MS),
    extensions: [
      extension(id_ce_basicConstraints, new BasicConstraints(), true),
      extension(id_ce_keyUsage, new KeyUsage(KeyUsageFlags.digitalSignature), true),
      extension(id_ce_extKeyUsage, new ExtendedKeyUsage([id_kp_serverAuth])),
      extension(
        id_ce_subjectAltName,
        new SubjectAlternativeName([new GeneralName(isIP(host) === 0 ? { dNSName: host } : { iPAddress: host })]),
      ),
    ],
  }
  const signed = certify(leaf, { name: subject, publicKey: createPublicKey(key), privateKey: key })
  return {
    cert: pem(signed) + pem(certificate),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    renewAt: now + LEAF_MS / 2,
  }
}

/** The hosts for which a CA of ours is good, by its own certificate. */
export function hostsOf(certificate: Buffer): string[] {
  const { extensions = [] } = AsnConvert.parse(certificate, Certificate).tbsCertificate
  const found = extensions.find(({ extnID }) => extnID === id_ce_nameConstraints)
  if (found === undefined) return []
  const { permittedSubtrees = [] } = AsnConvert.parse(found.extnValue, NameConstraints)
  return [...permittedSubtrees]
    .map(({ base }) => base.dNSName ?? base.iPAddress?.replace(/\/\d+$/, '') ?? '')
    .filter((host) => host !== NOBODY)
}

/** Stands for "no name at all", where only addresses are allowed (RFC 6761 §6.4). */
const NOBODY = 'nobody.invalid'

interface Keys {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

interface Signer extends Keys {
  readonly name: Name
}

interface Subject {
  readonly name: Name
  readonly publicKey: KeyObject
  readonly validity: Validity
  readonly extensions: readonly Extension[]
}

function newKeys(): Keys {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
}

/** DER of a certificate for the subject. */
function certify({ name, publicKey, validity, extensions }: Subject, signer: Signer): Buffer {
  const algorithm = new AlgorithmIdentifier({ algorithm: ECDSA_WITH_SHA256 })
  const authorityId = new AuthorityKeyIdentifier({ keyIdentifier: new KeyIdentifier(keyId(signer.publicKey)) })
  const tbsCertificate = new TBSCertificate({
    version: Version.v3,
    serialNumber: serialNumber(),
    signature: algorithm,
    issuer: signer.name,
    validity,
    subject: name,
    subjectPublicKeyInfo: infoOf(publicKey),
    extensions: new Extensions([
      ...extensions,
      extension(id_ce_subjectKeyIdentifier, new SubjectKeyIdentifier(keyId(publicKey))),
      extension(id_ce_authorityKeyIdentifier, authorityId),
    ]),
  })
  const signed = Buffer.from(AsnConvert.serialize(tbsCertificate))
  const signatureValue = bytesOf(sign('sha256', signed, signer.privateKey))
  const certificate = new Certificate({ tbsCertificate, signatureAlgorithm: algorithm, signatureValue })
  return Buffer.from(AsnConvert.serialize(certificate))
}

function caExtensions(hosts: readonly string[], pathLenConstraint: number): Extension[] {
  return [
    extension(id_ce_basicConstraints, new BasicConstraints({ cA: true, pathLenConstraint }), true),
    extension(id_ce_keyUsage, new KeyUsage(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign), true),
    extension(id_ce_nameConstraints, constraintsFor(hosts), true),
  ]
}

/** A kind of name that no subtree is of would be free: names and addresses are both bound, whichever the hosts are. */
function constraintsFor(hosts: readonly string[]): NameConstraints {
  const addresses = hosts.filter((host) => isIP(host) !== 0)
  const names = hosts.filter((host) => isIP(host) === 0)
  const permitted = [
    ...(names.length === 0 ? [NOBODY] : names).map((dNSName) => new GeneralName({ dNSName })),
    ...addresses.map((address) => new GeneralName({ iPAddress: `${address}/${isIP(address) === 4 ? 32 : 128}` })),
  ]
  const none = ['0.0.0.0/0', '::/0'].map((iPAddress) => new GeneralName({ iPAddress }))
  return new NameConstraints({
    permittedSubtrees: subtrees(permitted),
    ...(addresses.length === 0 ? { excludedSubtrees: subtrees(none) } : {}),
  })
}

function subtrees(names: readonly GeneralName[]): GeneralSubtrees {
  return new GeneralSubtrees(names.map((base) => new GeneralSubtree({ base })))
}

function extension(extnID: string, value: object, critical = false): Extension {
  return new Extension({ extnID, critical, extnValue: new OctetString(AsnConvert.serialize(value)) })
}

function nameOf(commonName: string): Name {
  const value = new AttributeValue({ utf8String: commonName })
  return new Name([new RelativeDistinguishedName([new AttributeTypeAndValue({ type: COMMON_NAME, value })])])
}

function validityOf(now: number, lastsMs: number): Validity {
  const validity = new Validity()
  validity.notBefore = new Time(new Date(now - EARLIER_MS))
  validity.notAfter = new Time(new Date(now + lastsMs))
  return validity
}

/** Positive, and not zero (RFC 5280 §4.1.2.2). */
function serialNumber(): ArrayBuffer {
  const bytes = randomBytes(16)
  bytes[0] = (bytes[0]! & 0x7f) | 0x40
  return bytesOf(bytes)
}

function infoOf(publicKey: KeyObject): SubjectPublicKeyInfo {
  return AsnConvert.parse(publicKey.export({ type: 'spki', format: 'der' }), SubjectPublicKeyInfo)
}

function keyId(publicKey: KeyObject): ArrayBuffer {
  return bytesOf(hash('sha1', Buffer.from(infoOf(publicKey).subjectPublicKey), 'buffer'))
}

function bytesOf(buffer: Buffer): ArrayBuffer {
  return new Uint8Array(buffer).buffer
}

function pem(certificate: Buffer): string {
  return new X509Certificate(certificate).toString()
}
