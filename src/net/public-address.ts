import { BlockList, isIPv4 } from 'node:net'

// IANA IPv4 Special-Purpose Address Registry, and what is no unicast address.
const SPECIAL_V4 = `0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
  192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
  203.0.113.0/24 224.0.0.0/4 240.0.0.0/4`
// Of 2000::/3, which is all that is given out of IPv6: IANA IPv6 Special-Purpose Address Registry.
const SPECIAL_V6 = '2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20'

const special = new BlockList()
for (const subnet of SPECIAL_V4.split(/\s+/)) add(special, subnet, 'ipv4')
for (const subnet of SPECIAL_V6.split(' ')) add(special, subnet, 'ipv6')
const givenOut = new BlockList()
add(givenOut, '2000::/3', 'ipv6')
const mapped = new BlockList()
add(mapped, '::ffff:0:0/96', 'ipv6')
const translated = new BlockList()
add(translated, '64:ff9b::/96', 'ipv6')

function add(list: BlockList, subnet: string, family: 'ipv4' | 'ipv6'): void {
  const [net = '', prefix] = subnet.split('/')
  list.addSubnet(net, Number(prefix), family)
}

/**
 * Whether an IP address is one of the public Internet: none of private networks, this machine, the link, carriers, cloud
 * metadata, documentation or multicast. One that holds an IPv4 address (mapped, RFC 4291 §2.5.5.2, or translated, RFC 6052)
 * is what that is; tunnels to one (6to4, Teredo) are never public.
 */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return !special.check(address, 'ipv4')
  const [bare = ''] = address.split('%') // without the zone
  if (isMapped(bare) || isIn(translated, bare)) return isPublicAddress(lastFourBytes(bare))
  return isIn(givenOut, bare) && !isIn(special, bare)
}

/** Whether it is an IPv4 address written as an IPv6 one. */
export function isMapped(address: string): boolean {
  return isIn(mapped, address)
}

/** False for what is no address. */
function isIn(list: BlockList, address: string): boolean {
  return list.check(address, 'ipv6')
}

/** Of an IPv6 address, as an IPv4 one. */
export function lastFourBytes(address: string): string {
  if (address.includes('.')) return address.slice(address.lastIndexOf(':') + 1)
  const [low = 0, high = 0] = address
    .split(':')
    .slice(-2)
    .map((group) => Number.parseInt(group || '0', 16))
    .toReversed()
  return [high >> 8, high & 255, low >> 8, low & 255].join('.')
}
