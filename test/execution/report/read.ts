import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestReport } from '../../../src/execution/report/report.ts'
import { openReports as open } from '../../../src/execution/report/reports.ts'
import { atOnce } from '../../../src/execution/report/slices.ts'

/** A report that a real tool wrote; `as` is what the file would be called in a run. */
export function written(name: string): Buffer {
  return readFileSync(join(import.meta.dirname, 'written', name))
}

const same = (text: string): string => text

/** Reports that are read at once, with a way to clean texts that does too. */
export function openReports(clean: (text: string) => string) {
  const reports = open(function* (text) {
    yield
    return clean(text)
  })
  return { ...reports, file: (path: string, bytes: Uint8Array) => atOnce(reports.file(path, bytes)) }
}

/** What a run says that leaves this one file. */
export function ofFile(name: string, content: string | Uint8Array, clean = same): TestReport | null {
  const reports = openReports(clean)
  reports.file(name, typeof content === 'string' ? Buffer.from(content) : content)
  return reports.report()
}

/** What a run says that prints this, in pieces of `size` bytes. */
export function ofOutput(text: string, size = 7, clean = same): TestReport | null {
  const reports = openReports(clean)
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at += size) {
    const piece = Buffer.from(bytes.subarray(at, at + size))
    reports.printed(0, piece)
    // The sender's buffer is used again.
    piece.fill(0)
  }
  return reports.report()
}

export function figures(
  report: TestReport | null,
): readonly [source: string, passed: number, failed: number, skipped: number] | null {
  return report === null ? null : [report.source, report.passed, report.failed, report.skipped]
}

export function names(report: TestReport | null): readonly string[] {
  return (report?.failures ?? []).map((failure) => failure.name)
}
