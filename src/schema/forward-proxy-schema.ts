import Type, { type StaticDecode } from 'typebox'
import { Value } from 'typebox/value'
import { duration, networkAccess, object, ownHost, port, whole } from './schema-parts.ts'

/** The port for tools that can only be told of a proxy: the field `forwardProxy`. */
export const ForwardProxySchema = object(
  {
    host: ownHost(
      'Address to listen on. Off loopback, clients must be configured: their keys are the proxy credentials.',
    ),
    port: port('Port for HTTPS_PROXY and HTTP_PROXY.', 3128),
    ca: Type.String({
      minLength: 1,
      default: '.sluice/ca',
      description:
        'Folder of the local CA, from the folder that the gateway is started in. It is made at the first start, for the hosts of the upstreams of then.',
    }),
    otherHosts: Type.Enum(['tunnel', 'refuse'], {
      default: 'tunnel',
      description:
        'What becomes of CONNECT to hosts that are no upstreams: tunnel passes it on unread where ports and network access allow it.',
    }),
    ports: Type.Array(Type.Integer({ minimum: 1, maximum: 65_535 }), {
      default: [443],
      description: 'Ports of other hosts to which a tunnel may lead.',
    }),
    networkAccess: networkAccess(
      'What tunnels to other hosts may reach, beside networkAccess of the gateway and the client',
    ),
    maxTunnels: whole('Most tunnels that may be open at once in a process, of both kinds.', {
      minimum: 1,
      default: 1000,
    }),
    idle: duration('Longest time without a byte in a tunnel to another host.', { default: '5m' }),
  },
  { description: 'A forward proxy for tools that know only HTTPS_PROXY. Without this field there is none.' },
)

export type ForwardProxyConfig = StaticDecode<typeof ForwardProxySchema>

/** What an empty `forwardProxy: {}` means. */
export function defaultForwardProxy(): ForwardProxyConfig {
  return Value.Decode(ForwardProxySchema, Value.Default(ForwardProxySchema, {}))
}
