/**
 * What is wrong with a service's URL, or null. `https`, or `http` where every address range is loopback: a token in
 * clear must not leave the machine. A URL carries no user, query or fragment, so that a secret cannot stand in it.
 */
export function urlProblem(text: string, addresses: readonly string[]): string | null {
  // Checked on the text: the parser would drop tabs and line ends silently.
  if (!/^[\u0021-\u007e]{1,2048}$/.test(text) || text.includes('\\'))
    return 'has to be plain ASCII without spaces or backslashes'
  if (!URL.canParse(text)) return 'is not a URL'
  const url = new URL(text)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return 'has to begin with https://'
  if (url.username !== '' || url.password !== '') return 'must not carry a user or password; use a credential'
  if (text.includes('?') || text.includes('#')) return 'must not carry a query or fragment'
  if (url.hostname === '') return 'names no host'
  // The parser would resolve dots away; what is written has to be what is dialled.
  if (/%2f|%5c|%2e/i.test(text) || /\/\.{1,2}(?:\/|$)/.test(text))
    return 'must not carry ".", ".." or an escaped slash, backslash or dot in its path'
  if (url.protocol === 'http:') {
    if (addresses.length === 0) return 'is plain http: use https, or name loopback "addresses" such as 127.0.0.0/8'
    if (!addresses.every(isLoopbackRange)) return 'is plain http, so its "addresses" have to be loopback ranges only'
  }
  return null
}

/** What is wrong with a CIDR range of `addresses`, or null. */
export function rangeProblem(text: string): string | null {
  const range = parseRange(text)
  if (range === null) return 'is not an address range such as 10.1.0.0/16 or fd00:12::/32'
  const { bytes, bits } = range
  const least = bytes.length === 4 ? 8 : 16
  if (bits < least) return `is too wide: at least /${least}`
  if (!bytes.every((byte, i) => (byte & hostMask(bits, i)) === 0)) return 'has bits set behind its prefix'
  if (linkLocal.some((local) => overlaps(range, local)))
    return 'reaches link-local addresses, where metadata services are'
  return null
}

interface Range {
  readonly bytes: readonly number[]
  readonly bits: number
}

function parseRange(text: string): Range | null {
  const match = /^([0-9a-f.:]{2,45})\/(0|[1-9][0-9]{0,2})$/i.exec(text)
  if (match === null) return null
  const bytes = parseV4(match[1] ?? '') ?? parseV6(match[1] ?? '')
  const bits = Number(match[2])
  return bytes === null || bits > bytes.length * 8 ? null : { bytes, bits }
}

function parseV4(text: string): number[] | null {
  if (!/^(?:(?:0|[1-9]\d{0,2})(?:\.|$)){4}$/.test(text) || text.endsWith('.')) return null
  const parts = text.split('.').map(Number)
  return parts.length === 4 && parts.every((part) => part <= 255) ? parts : null
}

function parseV6(text: string): number[] | null {
  // A dotted tail would be an IPv4 address in disguise.
  if (!text.includes(':') || text.includes('.') || !URL.canParse(`http://[${text}]/`)) return null
  return bytesOfV6(text)
}

/** The 16 bytes of an IPv6 address. Throws a `TypeError` for any other text, one with a zone included. */
export function bytesOfV6(address: string): number[] {
  const [head = '', tail] = new URL(`http://[${address}]/`).hostname.slice(1, -1).split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const groups = [...left, ...Array.from({ length: 8 - left.length - right.length }, () => '0'), ...right]
  return groups.flatMap((group) => {
    const value = Number.parseInt(group, 16)
    return [value >> 8, value & 255]
  })
}

const linkLocal: readonly Range[] = [
  { bytes: [169, 254, 0, 0], bits: 16 },
  { bytes: [0xfe, 0x80, ...Array.from({ length: 14 }, () => 0)], bits: 10 },
  // IPv4 in IPv6 clothes; name the IPv4 range instead.
  { bytes: [...Array.from({ length: 10 }, () => 0), 0xff, 0xff, 0, 0, 0, 0], bits: 96 },
]

function isLoopbackRange(text: string): boolean {
  const range = parseRange(text)
  if (range === null) return false
  if (range.bytes.length === 4) return range.bits >= 8 && range.bytes[0] === 127
  return range.bits === 128 && range.bytes.every((byte, i) => byte === (i === 15 ? 1 : 0))
}

/** The bits of byte `index` that lie behind a prefix of `bits`. */
function hostMask(bits: number, index: number): number {
  const kept = Math.min(8, Math.max(0, bits - index * 8))
  return 0xff >> kept
}

function overlaps(a: Range, b: Range): boolean {
  if (a.bytes.length !== b.bytes.length) return false
  const bits = Math.min(a.bits, b.bits)
  return a.bytes.every((byte, i) => ((byte ^ (b.bytes[i] ?? 0)) & ~hostMask(bits, i) & 0xff) === 0)
}
