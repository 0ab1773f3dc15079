import type { Readable } from 'node:stream'
import type { Digest } from '../digest.ts'

/** Immutable bytes named by digest. Holding a digest grants nothing: reading is decided by whose task they belong to. */
export interface ArtifactStore {
  /**
   * Stores a stream of at most `limit` bytes, durable when it resolves; storing the same bytes twice is storing them once.
   * Rejects `too_large` or `no_space`, and then nothing is left behind.
   */
  put(bytes: AsyncIterable<Uint8Array>, limit: number): Promise<{ readonly sha256: Digest; readonly size: number }>
  /** Bytes from offset `from`; rejects `not_found`. */
  open(digest: Digest, from?: number): Promise<Readable>
  /** The whole artifact, hashed again while it is read; rejects `ledger_corrupt` where the bytes are not the digest's. */
  read(digest: Digest, limit: number): Promise<Buffer>
  size(digest: Digest): Promise<number | null>
  /** A file that arrives in pieces and may be given up. Nothing of it is an artifact before its `keep`. */
  receive(): Upload
  /**
   * The size of what is stored, or null, and counts it as stored now: a sweep between this call and the step that
   * refers to the artifact does not take it.
   */
  hold(digest: Digest): number | null
  /** Bytes that may still be stored. */
  room(): Promise<number>
  /** Every artifact there is; one that is stored or removed meanwhile may be missing or named. */
  list(): AsyncIterable<Digest>
  /** Removes an artifact that was last stored or held before that moment (Unix milliseconds); false where it stays. */
  removeStoredBefore(digest: Digest, beforeMs: number): boolean
}

/** The bytes of one upload, hashed as they are written, over as many connections as it takes. One call at a time. */
export interface Upload {
  /** Bytes written so far. */
  readonly offset: number
  /**
   * Writes what comes, at most `most` bytes. Where the source fails, what came before stays and `offset` tells how much;
   * where the disk does, nothing is left and `offset` is 0. Rejects `too_large`, `no_space`, or what the source threw.
   */
  append(pieces: AsyncIterable<Uint8Array>, most: number): Promise<void>
  /** Everything written is on disk; its digest. Nothing may be appended after. */
  finish(): Promise<Digest>
  /** The bytes themselves, for an archive that is to be unpacked. */
  read(): Promise<Buffer>
  /** Makes an artifact of it. Only after `finish`. */
  keep(): Promise<void>
  /** Leaves nothing behind, unless it was kept. */
  discard(): Promise<void>
}
