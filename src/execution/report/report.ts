import { visible, visibleLine } from '../../approval/visible.ts'
import type { Work } from './slices.ts'

/** Where the figures come from; `several` where reports of different kinds were put together. */
export const reportSources = ['junit', 'tap', 'go', 'jest', 'vitest', 'several'] as const
export type ReportSource = (typeof reportSources)[number]

/**
 * What a run's test tool wrote of its tests. The workload wrote it, so it decides nothing: what ended a run is the exits
 * of its steps, which Writ saw. `total` is the sum of the three counts.
 */
export interface TestReport {
  readonly source: ReportSource
  /** Stands in every copy of it: claimed by the workload, not observed. */
  readonly asserted: true
  readonly total: number
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  /** Milliseconds, whole; null where the report does not say. */
  readonly duration_ms: number | null
  /** The first ones, with control and hiding characters written out. */
  readonly failures: readonly { readonly name: string; readonly message: string }[]
  /** True where there were more failures than stand here, or fewer results than were announced. */
  readonly truncated: boolean
}

/** Cases; a report of more is not believed. */
export const maxCases = 100_000
export const maxFailures = 20
/** Characters as shown. */
export const maxName = 200
export const maxMessage = 500
/** Characters of a text that is made fit to show; what comes after could never be seen. */
const maxRaw = 4096
/** Milliseconds; longer than any run may take. */
export const maxDuration = 1e9

/** Takes secrets out of a text; given the whole of it, before anything is cut off. */
export type Clean = (text: string) => Work<string>

/** Counts what one report says. */
export interface Tally {
  pass(): void
  skip(): void
  fail(name: string, message: string): void
  /** Adds milliseconds; what is no time is not added. */
  took(ms: number): void
  /** Notes that something is missing. */
  cut(): void
  readonly failed: number
  /** Null where more was counted than a report may hold. */
  report(): Work<TestReport | null>
}

export function openTally(source: ReportSource, clean: Clean): Tally {
  /** As they were written. */
  const first: { readonly name: string; readonly message: string }[] = []
  let passed = 0
  let failed = 0
  let skipped = 0
  let duration: number | null = null
  let truncated = false
  return {
    pass: () => void passed++,
    skip: () => void skipped++,
    fail(name, message) {
      failed++
      if (first.length < maxFailures) first.push({ name, message })
      else truncated = true
    },
    took(ms) {
      if (Number.isFinite(ms) && ms >= 0) duration = Math.min((duration ?? 0) + ms, maxDuration)
    },
    cut: () => void (truncated = true),
    get failed() {
      return failed
    },
    *report() {
      const total = passed + failed + skipped
      if (total > maxCases) return null
      const failures: { readonly name: string; readonly message: string }[] = []
      for (const { name, message } of first)
        failures.push({ name: shownName(yield* clean(name)), message: shown(yield* clean(message)) })
      const duration_ms = duration === null ? null : Math.round(duration)
      return { source, asserted: true, total, passed, failed, skipped, duration_ms, failures, truncated }
    },
  }
}

/** Reports of one run as one; null where there is none. */
export function merged(reports: readonly TestReport[]): TestReport | null {
  const [first] = reports
  if (first === undefined) return null
  const sum = (of: (report: TestReport) => number): number => reports.reduce((so, report) => so + of(report), 0)
  if (sum((report) => report.total) > maxCases) return null
  const failures = reports.flatMap((report) => report.failures)
  const durations = reports.flatMap((report) => (report.duration_ms === null ? [] : [report.duration_ms]))
  return {
    source: reports.every((report) => report.source === first.source) ? first.source : 'several',
    asserted: true,
    total: sum((report) => report.total),
    passed: sum((report) => report.passed),
    failed: sum((report) => report.failed),
    skipped: sum((report) => report.skipped),
    duration_ms:
      durations.length === 0
        ? null
        : Math.min(
            durations.reduce((so, one) => so + one, 0),
            maxDuration,
          ),
    failures: failures.slice(0, maxFailures),
    truncated: failures.length > maxFailures || reports.some((report) => report.truncated),
  }
}

/** `7 passed, 1 failed`, and what was skipped where something was. Says nothing of whether the run succeeded. */
export function countsText(report: Pick<TestReport, 'passed' | 'failed' | 'skipped'>): string {
  const { passed, failed, skipped } = report
  return `${passed} passed, ${failed} failed${skipped === 0 ? '' : `, ${skipped} skipped`}`
}

// oxlint-disable-next-line no-control-regex -- colours of a terminal are what is looked for
const colour = /\u001b\[[0-9;:]*m/g

function shown(text: string): string {
  const plain = text.slice(0, maxRaw).replace(colour, '').replace(/\r\n?/g, '\n').trim()
  return short(visible(plain), maxMessage)
}

function shownName(text: string): string {
  const plain = text.slice(0, maxRaw).replace(colour, '').trim()
  return short(visibleLine(plain === '' ? '(unnamed)' : plain), maxName)
}

function short(text: string, most: number): string {
  if (text.length <= most) return text
  const kept = text.slice(0, most - 1)
  // Half of a pair would be one more character that cannot be shown.
  return `${/[\ud800-\udbff]$/.test(kept) ? kept.slice(0, -1) : kept}…`
}
