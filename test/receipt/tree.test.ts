import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sha256 } from '../../src/digest.ts'
import {
  consistencyProof,
  createFrontier,
  inclusionProof,
  leafHash,
  verifyConsistency,
  verifyInclusion,
} from '../../src/receipt/tree.ts'

/** The seven-entry test tree of the certificate-transparency sources; roots published there. */
const entries = [
  '',
  '00',
  '10',
  '2021',
  '3031',
  '40414243',
  '5051525354555657',
  '606162636465666768696a6b6c6d6e6f',
].map((hex) => Buffer.from(hex, 'hex'))
const roots = [
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
]

function tree(size: number) {
  const frontier = createFrontier()
  const rootsBySize = [frontier.root()]
  const leaves: Buffer[] = []
  for (let i = 0; i < size; i++) {
    frontier.append(`entry ${i}`)
    leaves.push(leafHash(`entry ${i}`))
    rootsBySize.push(frontier.root())
  }
  return { leaves, roots: rootsBySize }
}

describe('the tree', () => {
  it('has the roots published for the reference entries', () => {
    const frontier = createFrontier()
    expect(frontier.root().toString('hex')).toBe(roots[0])
    for (const [i, entry] of entries.entries()) {
      frontier.append(entry)
      expect(frontier.size).toBe(i + 1)
      expect(frontier.root().toString('hex')).toBe(roots[i + 1])
    }
  })

  it('is not changed by what its clone goes on to append, nor by a caller that writes into a root', () => {
    const frontier = createFrontier()
    for (const entry of entries.slice(0, 3)) frontier.append(entry)
    const clone = frontier.clone()
    clone.append('other')
    frontier.root().fill(0)
    expect(frontier.root().toString('hex')).toBe(roots[3])
    frontier.append(entries[3] ?? '')
    expect(frontier.root().toString('hex')).toBe(roots[4])
    expect(clone.size).toBe(4)
  })

  it('proves every entry of every tree up to 33, and nothing else', () => {
    const { leaves, roots } = tree(33)
    for (let size = 1; size <= 33; size++)
      for (let index = 0; index < size; index++) {
        const proof = inclusionProof(leaves, index, size)
        const root = roots[size] ?? Buffer.alloc(0)
        const leaf = leaves[index] ?? Buffer.alloc(0)
        expect(verifyInclusion(leaf, index, size, proof, root)).toBe(true)
        expect(verifyInclusion(leaf, index, size, [...proof, leaf], root)).toBe(false)
        expect(verifyInclusion(leaf, index, size, proof.slice(0, -1), root)).toBe(proof.length === 0)
        expect(verifyInclusion(leaf, (index + 1) % size, size, proof, root)).toBe(size === 1)
        expect(verifyInclusion(leaf, size, size, proof, root)).toBe(false)
      }
  })

  it('proves every earlier tree consistent, and no other', () => {
    const { leaves, roots } = tree(33)
    const other = sha256('another history')
    for (let second = 1; second <= 33; second++)
      for (let first = 0; first <= second; first++) {
        const proof = consistencyProof(leaves, first, second)
        const a = roots[first] ?? other
        const b = roots[second] ?? other
        expect(verifyConsistency(first, a, second, b, proof)).toBe(true)
        expect(verifyConsistency(first, other, second, b, proof)).toBe(false)
        expect(verifyConsistency(first, a, second, other, proof)).toBe(first === 0)
        expect(verifyConsistency(first, a, second, b, [...proof, other])).toBe(false)
        expect(verifyConsistency(first, a, second, b, proof.slice(1))).toBe(proof.length === 0)
      }
  })

  it('refuses a proof with any bit changed', () => {
    const { leaves, roots } = tree(21)
    fc.assert(
      fc.property(fc.nat(20), fc.nat(), fc.nat(255), (index, which, bit) => {
        const proof = inclusionProof(leaves, index).map((hash) => Buffer.from(hash))
        const hash = proof[which % proof.length]
        if (hash !== undefined) hash[bit >> 3] = (hash[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        expect(verifyInclusion(leaves[index] ?? Buffer.alloc(0), index, 21, proof, roots[21] ?? Buffer.alloc(0))).toBe(
          false,
        )
      }),
      { numRuns: 200 },
    )
  })

  it('answers false for sizes, indexes and hashes that cannot be', () => {
    const { leaves, roots } = tree(4)
    const leaf = leaves[0] ?? Buffer.alloc(0)
    const root = roots[4] ?? Buffer.alloc(0)
    const proof = inclusionProof(leaves, 0)
    for (const [index, size] of [
      [-1, 4],
      [0, 0],
      [0.5, 4],
      [Number.NaN, 4],
      [0, Infinity],
    ] as const)
      expect(verifyInclusion(leaf, index, size, proof, root)).toBe(false)
    expect(verifyInclusion(leaf.subarray(1), 0, 4, proof, root)).toBe(false)
    expect(verifyConsistency(5, root, 4, root, [])).toBe(false)
    expect(verifyConsistency(2, roots[2] ?? root, 4, root, [Buffer.alloc(31)])).toBe(false)
    expect(() => inclusionProof(leaves, 4)).toThrow('the index of the entry')
    expect(() => consistencyProof(leaves, 5)).toThrow('the size of the earlier tree')
  })
})
