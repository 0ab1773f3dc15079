import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { digestOf } from '../../../src/digest.ts'
import { agentDigests, agentFor, architectures } from '../../../src/executor/docker/binary.ts'

const root = join(import.meta.dirname, '../../..')

describe('the agents that are shipped', () => {
  it('are executables of their architecture that need nothing of their image, and are small', () => {
    const machines = { amd64: 62, arm64: 183 }
    for (const architecture of architectures) {
      const { bytes, digest } = agentFor(architecture)
      expect(digestOf(bytes)).toBe(digest)
      expect(agentDigests()[architecture]).toBe(digest)
      expect(bytes.subarray(0, 4).toString('latin1')).toBe('\x7fELF')
      expect(bytes.readUInt16LE(18)).toBe(machines[architecture])
      // Program headers of ELF64: none is an interpreter (3) or dynamic section (2).
      const [at, size, count] = [Number(bytes.readBigUInt64LE(32)), bytes.readUInt16LE(54), bytes.readUInt16LE(56)]
      const kinds = Array.from({ length: count }, (_, index) => bytes.readUInt32LE(at + index * size))
      expect(kinds).toContain(1)
      expect(kinds.filter((kind) => kind === 2 || kind === 3)).toEqual([])
      expect(bytes.length).toBeLessThan(3 * 1024 * 1024)
    }
    expect(agentDigests().amd64).not.toBe(agentDigests().arm64)
  })

  it('hold no path of the machine they were built on', () => {
    for (const architecture of architectures) {
      const text = agentFor(architecture).bytes.toString('latin1')
      expect([
        text.includes(root),
        /\/(?:root|home)\/[\w.-]+\/go\//.test(text),
        text.includes('/usr/local/go'),
      ]).toEqual([false, false, false])
    }
  })

  it('are what the page of the protocol speaks of', () => {
    const page = readFileSync(join(root, 'native/sandbox-agent/PROTOCOL.md'), 'utf8')
    const source = readFileSync(join(root, 'native/sandbox-agent/frame.go'), 'utf8')
    const kinds = [...page.matchAll(/^\| (0x[0-9a-f]{2}) \| (\w+) \|/gm)].map(([, kind]) => kind ?? '')
    expect(kinds.length).toBe(24)
    expect([...new Set([...source.matchAll(/= (0x[0-9a-f]{2})$/gm)].map(([, kind]) => kind ?? ''))].toSorted()).toEqual(
      kinds.toSorted(),
    )
  })
})
