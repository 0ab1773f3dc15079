import type { RedactionStream, Redactor } from '../credential/redact.ts'
import { maxPayload } from '../execution/host-wire.ts'
import { pathProblem } from '../request/files.ts'
import type { ArtifactSink, OutputSink } from './executor.ts'

/** What a run's output passes on its way to the broker: redaction first, then the limit, so that none is cut in two. */
export interface OutputCounter extends OutputSink {
  /** Lets go of what was held back of the streams; for the end of a step and of the run. */
  flush(): void
  readonly redactions: number
  readonly dropped: number
}

export interface ArtifactCounter extends ArtifactSink {
  withhold(count: number): void
  readonly redactions: number
  readonly withheld: number
}

type Stream = 'stdout' | 'stderr'
const maxFiles = 1000
/** Bytes of one frame of output. */
const frameBytes = 1024 * 1024

/** `limit` in bytes, both streams of all steps together, counted after redaction. */
export function openOutput(
  redactor: Redactor | null,
  limit: number,
  send: (step: number, stream: Stream, bytes: Uint8Array) => void,
): OutputCounter {
  const streams = new Map<Stream, RedactionStream>()
  let step = 0
  let left = limit
  let dropped = 0

  function pass(stream: Stream, bytes: Uint8Array): void {
    const kept = bytes.subarray(0, Math.max(left, 0))
    left -= kept.length
    dropped += bytes.length - kept.length
    for (let at = 0; at < kept.length; at += frameBytes) send(step, stream, kept.subarray(at, at + frameBytes))
  }
  function streamOf(stream: Stream): RedactionStream | null {
    if (redactor === null) return null
    const known = streams.get(stream) ?? redactor.stream()
    streams.set(stream, known)
    return known
  }
  function flush(): void {
    for (const [name, stream] of streams) pass(name, stream.flush())
  }
  return {
    write(at, stream, bytes) {
      if (at !== step) {
        flush()
        step = at
      }
      pass(stream, streamOf(stream)?.write(bytes) ?? bytes)
    },
    get full() {
      return dropped > 0
    },
    flush,
    get redactions() {
      let hits = 0
      for (const stream of streams.values()) hits += stream.hits
      return hits
    },
    get dropped() {
      return dropped
    },
  }
}

/** `limit` in bytes of all files together, and a frame to the broker of each. Text is redacted; what is no text and holds a secret is withheld whole. */
export function openArtifacts(
  redactor: Redactor | null,
  limit: number,
  send: (path: string, bytes: Uint8Array) => Promise<void>,
): ArtifactCounter {
  const names = new Set<string>()
  let left = limit
  let redactions = 0
  let withheld = 0
  return {
    async put(path, bytes) {
      const name = safePath(path)
      if (name === null || names.has(name.toLowerCase()) || names.size >= maxFiles) {
        withheld++
        return
      }
      // A name is as good a way out as the bytes are.
      const named = redactor?.bytes(Buffer.from(name)).hits ?? 0
      const clean = redactor?.bytes(bytes) ?? { bytes, hits: 0 }
      const kept = clean.hits === 0 ? bytes : clean.bytes
      if (named > 0 || (clean.hits > 0 && !isText(bytes)) || kept.length > Math.min(left, maxPayload)) {
        withheld++
        return
      }
      redactions += clean.hits
      left -= kept.length
      names.add(name.toLowerCase())
      await send(name, kept)
    },
    withhold(count) {
      withheld += count
    },
    get redactions() {
      return redactions
    },
    get withheld() {
      return withheld
    },
  }
}

/** The path as a file of a run may have it (NFC, at most 512 bytes), or null: what the broker would not take either. */
export function safePath(path: string): string | null {
  const name = path.normalize('NFC')
  return pathProblem(name) === null && Buffer.byteLength(name) <= 512 ? name : null
}

function isText(bytes: Uint8Array): boolean {
  if (bytes.includes(0)) return false
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return true
  } catch {
    return false
  }
}
