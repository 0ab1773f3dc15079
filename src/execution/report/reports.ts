import { openGo } from './go.ts'
import { readJest } from './jest.ts'
import { maxJunit, readJunit } from './junit.ts'
import { merged } from './report.ts'
import type { Clean, TestReport } from './report.ts'
import { sliceSize } from './slices.ts'
import type { Work } from './slices.ts'
import { openTap } from './tap.ts'
import type { LineReader } from './tap.ts'

/** Gathers what a run says of its tests while it goes by. Nothing here throws, whatever the workload wrote. */
export interface Reports {
  /** Standard output of a step, redacted. */
  printed(step: number, bytes: Uint8Array): void
  /** A file of `$WRIT_OUT`, redacted; looked at only where its name is that of a report. */
  file(path: string, bytes: Uint8Array): Work<void>
  /** Null where nothing was a report. What was printed counts only where no file did: tools write the same to both. */
  report(): TestReport | null
}

/** Files of a run that are read, and their bytes together: the run host has other runs to attend to. */
const maxFiles = 64
const maxBytes = 2 * maxJunit
/** Bytes; a longer line is passed over. */
const maxLine = 64 * 1024

/** `clean` takes secrets out of texts once more: inside a report they may have been spelled in another way. */
export function openReports(clean: Clean): Reports {
  const files: TestReport[] = []
  const steps: TestReport[] = []
  let filesLeft = maxFiles
  let bytesLeft = maxBytes
  let step = -1
  let stream: Stream | null = null

  function endStep(): void {
    steps.push(...(stream?.end() ?? []))
    stream = null
  }
  return {
    printed(at, bytes) {
      if (at !== step) endStep()
      step = at
      stream ??= openStream(clean)
      stream.write(bytes)
    },
    *file(path, bytes) {
      const read = readerOf(path)
      if (read === null || filesLeft === 0 || bytes.length > bytesLeft) return
      filesLeft--
      bytesLeft -= bytes.length
      const report = yield* read(bytes, clean)
      if (report !== null) files.push(report)
    },
    report() {
      endStep()
      return merged(files.length > 0 ? files : steps)
    },
  }
}

/** Who reads a file of this name; null for all that is no report by its name. */
function readerOf(path: string): ((bytes: Uint8Array, clean: Clean) => Work<TestReport | null>) | null {
  const name = path.slice(path.lastIndexOf('/') + 1).toLowerCase()
  if (name.endsWith('.xml'))
    return name.startsWith('junit') || name.startsWith('test-') || name === 'report.xml' ? readJunit : null
  if (name.endsWith('.tap')) return readTap
  if (!name.endsWith('.json')) return null
  if (name.startsWith('vitest')) return (bytes, clean) => readJest(bytes, 'vitest', clean)
  return name.startsWith('jest') ? (bytes, clean) => readJest(bytes, 'jest', clean) : null
}

function* readTap(bytes: Uint8Array, clean: Clean): Work<TestReport | null> {
  const reader = openTap(clean, { versioned: false })
  const lines = openLines((line) => reader.line(line.toString('utf8')))
  for (let at = 0; at < bytes.length; at += sliceSize) {
    lines.write(bytes.subarray(at, at + sliceSize))
    yield
  }
  lines.end()
  return reader.end()
}

interface Stream {
  write(bytes: Uint8Array): void
  end(): readonly TestReport[]
}

const brace = 0x7b
const capitalT = 0x54

/** What one step prints, for the two formats that are printed. */
function openStream(clean: Clean): Stream {
  const go = openGo(clean)
  const tap = openTap(clean, { versioned: true })
  let tapBegun = false
  const readers: readonly LineReader[] = [go, tap]
  const lines = openLines(
    (line) => {
      if (line[0] === brace) go.line(line.toString('utf8'))
      else if (tapBegun || (line.length < 32 && line.subarray(0, 11).toString('latin1') === 'TAP version')) {
        tapBegun = true
        tap.line(line.toString('utf8'))
      }
    },
    (first) => tapBegun || first === brace || first === capitalT,
  )
  return {
    write: (bytes) => lines.write(bytes),
    end() {
      lines.end()
      return readers.flatMap((reader) => reader.end() ?? [])
    },
  }
}

interface Lines {
  write(bytes: Uint8Array): void
  end(): void
}

/**
 * Cuts a stream into lines without their ends; keeps at most one unfinished line. Whole lines that begin with a byte
 * that is not `wanted` are passed over: most of what runs print is no report.
 */
function openLines(take: (line: Buffer) => void, wanted: (first: number) => boolean = () => true): Lines {
  let held: Buffer[] = []
  let size = 0
  let tooLong = false
  function add(piece: Buffer): void {
    size += piece.length
    if (size > maxLine) {
      tooLong = true
      held = []
    } else if (piece.length > 0) held.push(piece)
  }
  function finish(): void {
    if (!tooLong) {
      const line = held.length === 1 ? held[0] : Buffer.concat(held)
      if (line !== undefined) take(line.at(-1) === 0x0d ? line.subarray(0, -1) : line)
    }
    held = []
    size = 0
    tooLong = false
  }
  return {
    write(bytes) {
      const given = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
      let from = 0
      for (let end = given.indexOf(0x0a); end >= 0; end = given.indexOf(0x0a, from)) {
        if (size > 0 || wanted(given[from] ?? 0)) {
          add(given.subarray(from, end))
          finish()
        }
        from = end + 1
      }
      // A copy: the sender may use its buffer again.
      if (from < given.length) add(Buffer.from(given.subarray(from)))
    },
    end() {
      if (size > 0) finish()
    },
  }
}
