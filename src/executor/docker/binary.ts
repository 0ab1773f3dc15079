import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliDecompressSync } from 'node:zlib'
import { digestOf, parseDigest } from '../../digest.ts'
import type { Digest } from '../../digest.ts'
import { WritError } from '../../error.ts'

/** What the sandbox agent is built for, in the engine's words for an architecture. */
export const architectures = ['amd64', 'arm64'] as const
export type Architecture = (typeof architectures)[number]

const folder = fileURLToPath(new URL('../../../native/sandbox-agent/', import.meta.url))
/** Bytes the agent may unpack to; the built one has under 3.2 million. */
const maxAgent = 16 * 1024 * 1024

/** The digests of the agents this Writ was built with; read without touching the agents themselves. */
export function agentDigests(): Readonly<Record<Architecture, Digest>> {
  return { amd64: listed('amd64'), arm64: listed('arm64') }
}

/** The agent's executable. Rejects `internal` where what is installed is not what this Writ was built with. */
export function agentFor(architecture: Architecture): { readonly bytes: Buffer; readonly digest: Digest } {
  const digest = listed(architecture)
  const bytes = brotliDecompressSync(readFileSync(join(folder, `sandbox-agent-${architecture}.br`)), {
    maxOutputLength: maxAgent,
  })
  if (digestOf(bytes) !== digest)
    throw new WritError('internal', 'the sandbox agent is not the one this Writ was built with; install Writ again')
  return { bytes, digest }
}

function listed(architecture: Architecture): Digest {
  const digest = parseDigest(
    `sha256:${readFileSync(join(folder, `sandbox-agent-${architecture}.sha256`), 'utf8').trim()}`,
  )
  if (digest === null) throw new WritError('internal', 'the digest of the sandbox agent is missing; install Writ again')
  return digest
}
