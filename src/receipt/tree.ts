import { hash } from 'node:crypto'
import { WritError } from '../error.ts'

/**
 * The Merkle tree of RFC 6962 §2.1 over SHA-256: leaf = H(0x00 ‖ entry), node = H(0x01 ‖ left ‖ right), the empty
 * tree's root = H(""). Proofs are those of RFC 9162 §2.1.3 and §2.1.4, taken over leaf hashes.
 */

/** The right edge of a growing tree: one hash for each perfect subtree, so memory is O(log n). */
export interface Frontier {
  readonly size: number
  append(entry: Uint8Array | string): void
  /** 32 bytes. */
  root(): Buffer
  clone(): Frontier
}

const emptyRoot = hash('sha256', '', 'buffer')

export function leafHash(entry: Uint8Array | string): Buffer {
  const bytes = typeof entry === 'string' ? Buffer.from(entry, 'utf8') : entry
  const input = Buffer.allocUnsafe(bytes.length + 1)
  input[0] = 0
  input.set(bytes, 1)
  return hash('sha256', input, 'buffer')
}

function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  const input = Buffer.allocUnsafe(65)
  input[0] = 1
  input.set(left, 1)
  input.set(right, 33)
  return hash('sha256', input, 'buffer')
}

export function createFrontier(): Frontier {
  return frontier(0, [])
}

/** `peaks` are the roots of the perfect subtrees, largest first: one for each bit set in `size`. */
function frontier(initial: number, peaks: Buffer[]): Frontier {
  let size = initial
  return {
    get size() {
      return size
    },
    append(entry) {
      let carry = leafHash(entry)
      // Sizes may pass 2^32, where the bit operators would wrap.
      for (let rest = size; rest % 2 === 1; rest = (rest - 1) / 2) carry = nodeHash(peaks.pop() ?? emptyRoot, carry)
      peaks.push(carry)
      size++
    },
    root() {
      return peaks.length === 0
        ? Buffer.from(emptyRoot)
        : Buffer.from(peaks.reduceRight((right, left) => nodeHash(left, right)))
    },
    clone() {
      return frontier(size, [...peaks])
    },
  }
}

/** The root over `leaves[start, end)`. */
function rangeRoot(leaves: readonly Uint8Array[], start: number, end: number): Buffer {
  if (end === start) return emptyRoot
  if (end === start + 1) return Buffer.from(leaves[start] ?? emptyRoot)
  const middle = start + split(end - start)
  return nodeHash(rangeRoot(leaves, start, middle), rangeRoot(leaves, middle, end))
}

/** The largest power of two below `n`, for n > 1. */
function split(n: number): number {
  let k = 1
  while (k * 2 < n) k *= 2
  return k
}

function bounded(name: string, value: number, least: number, most: number): void {
  if (!Number.isSafeInteger(value) || value < least || value > most)
    throw new WritError('internal', `${name} is not within ${least} and ${most}`)
}

/** RFC 9162 §2.1.3.1: PATH(index, leaves[0, size)). */
export function inclusionProof(
  leaves: readonly Uint8Array[],
  index: number,
  size: number = leaves.length,
): readonly Buffer[] {
  bounded('the size of the tree', size, 1, leaves.length)
  bounded('the index of the entry', index, 0, size - 1)
  const path: Buffer[] = []
  let start = 0
  let end = size
  while (end - start > 1) {
    const middle = start + split(end - start)
    if (index < middle) {
      path.push(rangeRoot(leaves, middle, end))
      end = middle
    } else {
      path.push(rangeRoot(leaves, start, middle))
      start = middle
    }
  }
  return path.reverse()
}

/** RFC 9162 §2.1.4.1: PROOF(first, leaves[0, second)). Empty for first = 0 and for first = second. */
export function consistencyProof(
  leaves: readonly Uint8Array[],
  first: number,
  second: number = leaves.length,
): readonly Buffer[] {
  bounded('the size of the later tree', second, 0, leaves.length)
  bounded('the size of the earlier tree', first, 0, second)
  if (first === 0 || first === second) return []
  const path: Buffer[] = []
  let start = 0
  let end = second
  let whole = true
  while (first !== end) {
    const middle = start + split(end - start)
    if (first <= middle) {
      path.push(rangeRoot(leaves, middle, end))
      end = middle
    } else {
      path.push(rangeRoot(leaves, start, middle))
      start = middle
      whole = false
    }
  }
  if (!whole) path.push(rangeRoot(leaves, start, end))
  return path.reverse()
}

/** RFC 9162 §2.1.3.2. False for any proof that is not exactly the one of this entry in this tree. */
export function verifyInclusion(
  leaf: Uint8Array,
  index: number,
  size: number,
  proof: readonly Uint8Array[],
  root: Uint8Array,
): boolean {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size) || index < 0 || index >= size) return false
  if (leaf.length !== 32 || proof.some((hash) => hash.length !== 32)) return false
  let fn = index
  let sn = size - 1
  let r: Buffer = Buffer.from(leaf)
  for (const p of proof) {
    if (sn === 0) return false
    if (odd(fn) || fn === sn) {
      r = nodeHash(p, r)
      while (!odd(fn) && fn !== 0) {
        fn = half(fn)
        sn = half(sn)
      }
    } else r = nodeHash(r, p)
    fn = half(fn)
    sn = half(sn)
  }
  return sn === 0 && r.equals(root)
}

/** RFC 9162 §2.1.4.2. A tree of size 0 is consistent with every tree, by the empty proof alone. */
export function verifyConsistency(
  first: number,
  firstRoot: Uint8Array,
  second: number,
  secondRoot: Uint8Array,
  proof: readonly Uint8Array[],
): boolean {
  if (!Number.isSafeInteger(first) || !Number.isSafeInteger(second) || first < 0 || first > second) return false
  if (proof.some((hash) => hash.length !== 32)) return false
  if (first === second) return proof.length === 0 && Buffer.from(firstRoot).equals(secondRoot)
  if (first === 0) return proof.length === 0 && emptyRoot.equals(firstRoot)
  let fn = first - 1
  let sn = second - 1
  while (odd(fn)) {
    fn = half(fn)
    sn = half(sn)
  }
  // Where `first` is a power of two its root is the first node of the path and is not sent.
  const path = fn === 0 ? [firstRoot, ...proof] : proof
  const [seed, ...rest] = path
  if (seed === undefined) return false
  let fr: Buffer = Buffer.from(seed)
  let sr: Buffer = Buffer.from(seed)
  for (const c of rest) {
    if (sn === 0) return false
    if (odd(fn) || fn === sn) {
      fr = nodeHash(c, fr)
      sr = nodeHash(c, sr)
      while (!odd(fn) && fn !== 0) {
        fn = half(fn)
        sn = half(sn)
      }
    } else sr = nodeHash(sr, c)
    fn = half(fn)
    sn = half(sn)
  }
  return sn === 0 && fr.equals(firstRoot) && sr.equals(secondRoot)
}

function odd(n: number): boolean {
  return n % 2 === 1
}

function half(n: number): number {
  return Math.floor(n / 2)
}
