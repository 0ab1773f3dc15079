import { WritError } from '../error.ts'

export interface Needle {
  readonly bytes: Uint8Array
  /** Which secret it is a form of. */
  readonly owner: number
}

/** Dense rows are kept for the states near the root, where ordinary text spends its time. */
const denseRows = 512

/** Set on a transition that needs a closer look: a byte to normalise, the end of a needle, a state without a row. */
export type Automaton = {
  /** `row[state * 256 + byte]`: the next state, or its complement where the plain loop has to stop. */
  readonly rows: Int32Array
  readonly dense: number
  /** Length of the longest prefix of a needle that ends here. */
  readonly depth: Int32Array
  /** Length of the longest needle that ends here, 0 where none does. */
  readonly length: Int32Array
  /** Owner of that needle. */
  readonly owner: Int32Array
  readonly longest: number
  /** The next state, for any state. */
  step(state: number, byte: number): number
  /** Bytes of its tables. */
  readonly size: number
}

/**
 * Byte-wise Aho–Corasick. States are numbered breadth first, so the children of a state are neighbours and the states
 * near the root come first: those have a full row of transitions, the rest find their child and fall back.
 * `special` are the bytes at which the caller wants to be stopped.
 */
export function buildAutomaton(needles: readonly Needle[], special: ReadonlySet<number>): Automaton {
  const trie = buildTrie(needles)
  const count = trie.count
  const label = new Uint8Array(count)
  const first = new Int32Array(count + 1)
  const fail = new Int32Array(count)
  const depth = new Int32Array(count)
  const length = new Int32Array(count)
  const owner = new Int32Array(count)
  const dense = Math.min(count, denseRows)
  const rows = new Int32Array(dense * 256)

  const nodeOf = new Int32Array(count)
  const parentOf = new Int32Array(count)
  let next = 1
  for (let state = 0; state < count; state += 1) {
    const node = nodeOf[state] ?? 0
    first[state] = next
    for (let child = trie.child[node] ?? 0; child !== 0; child = trie.sibling[child] ?? 0) {
      nodeOf[next] = child
      parentOf[next] = state
      label[next] = trie.label[child] ?? 0
      depth[next] = (depth[state] ?? 0) + 1
      next += 1
    }
  }
  first[count] = next

  const childOf = (state: number, byte: number): number => {
    const end = first[state + 1] ?? 0
    for (let child = first[state] ?? 0; child < end; child += 1) if (label[child] === byte) return child
    return 0
  }
  const step = (from: number, byte: number): number => {
    let state = from
    for (;;) {
      if (state < dense) {
        const target = rows[state * 256 + byte] ?? 0
        return target < 0 ? ~target : target
      }
      const child = childOf(state, byte)
      if (child !== 0) return child
      state = fail[state] ?? 0
    }
  }

  for (let state = 0; state < count; state += 1) {
    const parent = parentOf[state] ?? 0
    // A state's fall-back is nearer to the root, so its row and its own fall-back are already there.
    const back = state === 0 || parent === 0 ? 0 : step(fail[parent] ?? 0, label[state] ?? 0)
    fail[state] = back
    const node = nodeOf[state] ?? 0
    const ends = trie.owner[node] ?? -1
    length[state] = ends >= 0 ? (depth[state] ?? 0) : (length[back] ?? 0)
    owner[state] = ends >= 0 ? ends : (owner[back] ?? 0)
    if (state >= dense) continue
    for (let byte = 0; byte < 256; byte += 1) {
      const child = childOf(state, byte)
      rows[state * 256 + byte] = child !== 0 ? child : state === 0 ? 0 : step(back, byte)
    }
  }
  // Marked last: `step` above and the marks below read the same table.
  for (let at = 0; at < rows.length; at += 1) {
    const target = rows[at] ?? 0
    if (target >= dense || (length[target] ?? 0) > 0 || special.has(at & 255)) rows[at] = ~target
  }
  let longest = 0
  for (const needle of needles) longest = Math.max(longest, needle.bytes.length)
  return { rows, dense, depth, length, owner, longest, step, size: count * 21 + rows.byteLength }
}

interface Trie {
  readonly count: number
  readonly child: Int32Array
  readonly sibling: Int32Array
  readonly label: Uint8Array
  /** Owner of the needle that ends at the node, or -1. */
  readonly owner: Int32Array
}

function buildTrie(needles: readonly Needle[]): Trie {
  let most = 1
  for (const needle of needles) most += needle.bytes.length
  const child = new Int32Array(most)
  const sibling = new Int32Array(most)
  const label = new Uint8Array(most)
  const owner = new Int32Array(most).fill(-1)
  let count = 1
  for (const needle of needles) {
    if (needle.bytes.length === 0) throw new WritError('internal', 'an empty needle')
    let node = 0
    for (const byte of needle.bytes) {
      let at = child[node] ?? 0
      while (at !== 0 && label[at] !== byte) at = sibling[at] ?? 0
      if (at === 0) {
        at = count
        count += 1
        label[at] = byte
        sibling[at] = child[node] ?? 0
        child[node] = at
      }
      node = at
    }
    if (owner[node] === -1) owner[node] = needle.owner
  }
  return { count, child, sibling, label, owner }
}
