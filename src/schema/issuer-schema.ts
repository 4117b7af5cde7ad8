import Type, { type StaticDecode } from 'typebox'
import { duration, httpUrl, object, text } from './schema-parts.ts'

/** An entry of `tokenIssuers`: an issuer whose signed tokens (RFC 7519) clients may present. */
export const IssuerSchema = object({
  issuer: text('What `iss` of its tokens must be, exactly.'),
  audience: text('What `aud` of its tokens must be or contain: this gateway.'),
  jwks: httpUrl('URL of its public keys, as a JSON Web Key Set (RFC 7517).'),
  algorithms: Type.Array(
    Type.Enum(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']),
    {
      minItems: 1,
      default: ['RS256'],
      description: 'How its tokens may be signed; whatever a token says of that itself.',
    },
  ),
  clockTolerance: duration('How far its clock may be from ours.', { default: '30s', min: '0s', max: '10m' }),
  refresh: duration('How long its keys are kept before they are asked for again.', { default: '10m', min: '1s' }),
  cooldown: duration('Least time between two questions because of a key that is not known yet.', {
    default: '30s',
    min: '100ms',
  }),
  privateAddresses: Type.Optional(
    Type.Enum(['allow', 'deny'], { description: 'Whether its host may have a private address, as with upstreams.' }),
  ),
})

export type IssuerConfig = StaticDecode<typeof IssuerSchema>
