import { expect, it } from 'vitest'
import { defaultLimits } from '../../src/plan/limits.ts'
import { roomProblem } from '../../src/plan/room.ts'

const mib = 1_048_576
const of = (...sizes: readonly number[]): { readonly path: string; readonly size: number }[] =>
  sizes.map((size, at) => ({ path: `f${at}`, size: size * mib }))

it('an isolate takes files of a quarter of its memory, and none over 64 MiB', () => {
  expect(roomProblem('isolate', defaultLimits, of(64))).toBeNull()
  expect(roomProblem('isolate', defaultLimits, of(32, 32))).toBeNull()
  expect(roomProblem('isolate', defaultLimits, of(32, 32.5))?.what).toBe(
    'room: with 256 MB of memory this target takes 64 MiB of files, and the task has 64.5 MiB',
  )
  const large = { ...defaultLimits, memory_mb: 4096 }
  expect(roomProblem('isolate', large, of(64, 64, 64, 64))).toBeNull()
  expect(roomProblem('isolate', large, of(64, 64, 64, 64, 1))?.what).toContain('takes 256 MiB of files')
  expect(roomProblem('isolate', large, of(65))?.what).toContain('files of at most 64 MiB each, and "f0" has 65 MiB')
})

it('a container takes files of three quarters of its working folder, which is half of its memory', () => {
  expect(roomProblem('docker', defaultLimits, of(64, 32))).toBeNull()
  expect(roomProblem('docker', defaultLimits, of(64, 32.001))?.what).toContain('takes 96 MiB of files')
  expect(roomProblem('docker', defaultLimits, of(65))?.what).toContain('files of at most 64 MiB each')
  const pages = Array.from({ length: 30_000 }, (_, at) => ({ path: `f${at}`, size: 1 }))
  expect(roomProblem('docker', defaultLimits, pages)?.what).toContain('the task has 117.2 MiB')
})

it('other kinds have limits of their own', () => {
  expect(roomProblem('ssh', defaultLimits, of(1024))).toBeNull()
})
