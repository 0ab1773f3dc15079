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
}
