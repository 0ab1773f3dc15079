import { BlockList, isIP, isIPv6 } from 'node:net'
import { networkInterfaces } from 'node:os'
import { bytesOfV6 } from '../plan/address.ts'

/** What no service may resolve to unless its `addresses` list it. */
const notRoutable: readonly string[] = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/3',
  '::/96',
  '64:ff9b:1::/48',
  '100::/64',
  '2001::/23',
  '2001:db8::/32',
  '3fff::/20',
  '5f00::/16',
  'fc00::/7',
  'fe80::/10',
  'fec0::/10',
  'ff00::/8',
]

/** Metadata services of clouds: never reached, whatever a service lists. */
const metadata: readonly string[] = [
  '169.254.169.254/32',
  '169.254.170.2/32',
  '169.254.170.23/32',
  '169.254.169.253/32',
  '100.100.100.200/32',
  '168.63.129.16/32',
  '192.0.0.192/32',
  'fe80::a9fe:a9fe/128',
  'fd00:ec2::/32',
  'fd20:ce::254/128',
  'fd00:c1::a9fe:a9fe/128',
  'fd00:42::42/128',
]

/** A set of CIDR ranges. A range that is none is refused with a `RangeError`, which names it. */
export function rangesOf(ranges: readonly string[]): BlockList {
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', bits = '', more] = range.split('/')
    const family = isIP(address)
    if (
      family === 0 ||
      more !== undefined ||
      !/^(0|[1-9]\d{0,2})$/.test(bits) ||
      Number(bits) > (family === 4 ? 32 : 128)
    )
      throw new RangeError(`"${range}" is not an address range such as 10.1.0.0/16 or fd00:12::/32`)
    list.addSubnet(address, Number(bits), family === 4 ? 'ipv4' : 'ipv6')
  }
  return list
}

function holds(list: BlockList, address: string): boolean {
  return list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
}

const deniedRanges = rangesOf(notRoutable)
const metadataRanges = rangesOf(metadata)
const loopbackRanges = rangesOf(['127.0.0.0/8', '::1/128'])

/**
 * True where a service with these `addresses` may be dialled at this literal address. An address that carries an IPv4
 * address inside (mapped, compatible, NAT64, 6to4) is judged by that one too; one with a zone, or that is no address, is refused.
 */
export function mayDial(address: string, listed: BlockList): boolean {
  if (isIP(address) === 0 || address.includes('%')) return false
  const all = [address, ...embedded(address)]
  if (all.some((one) => holds(metadataRanges, one))) return false
  return holds(listed, address) || all.every((one) => holds(listed, one) || !(holds(deniedRanges, one) || isOwn(one)))
}

export function isLoopback(address: string): boolean {
  return isIP(address) !== 0 && holds(loopbackRanges, address)
}

function isOwn(address: string): boolean {
  const own = new BlockList()
  for (const addresses of Object.values(networkInterfaces()))
    for (const one of addresses ?? []) own.addAddress(one.address, one.family === 'IPv6' ? 'ipv6' : 'ipv4')
  return holds(own, address)
}

/** The IPv4 addresses inside of an IPv6 address. */
function embedded(address: string): readonly string[] {
  if (!isIPv6(address)) return []
  const bytes = bytesOfV6(address)
  const at = (offset: number): string => bytes.slice(offset, offset + 4).join('.')
  const starts = (...prefix: readonly number[]): boolean => prefix.every((byte, index) => bytes[index] === byte)
  const zeros = (from: number, to: number): boolean => bytes.slice(from, to).every((byte) => byte === 0)
  const found: string[] = []
  if (zeros(0, 10) && bytes[10] === 0xff && bytes[11] === 0xff) found.push(at(12))
  if (zeros(0, 12)) found.push(at(12))
  // RFC 2765 translated form ::ffff:0:a.b.c.d
  if (zeros(0, 8) && bytes[8] === 0xff && bytes[9] === 0xff && zeros(10, 12)) found.push(at(12))
  if (starts(0x00, 0x64, 0xff, 0x9b) && zeros(4, 12)) found.push(at(12))
  if (starts(0x20, 0x02)) found.push(at(2))
  // ISATAP carries the address behind a fixed identifier.
  if (bytes[10] === 0x5e && bytes[11] === 0xfe) found.push(at(12))
  return found
}
