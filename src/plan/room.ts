import type { TaskFile } from '../request/task.ts'
import { showPath } from '../request/files.ts'
import { workFolderMb } from './container.ts'
import type { Limits, Missing } from './plan.ts'

const mib = 1_048_576
/** One frame of the pipes a file is handed over by holds no more. */
const eachBytes = 64 * mib
/** The run host holds all files of a run while it hands them over. */
const allBytes = 256 * mib

/**
 * What is missing where a run could not take its files, or null. An isolate has no disk: its files lie in its worker's
 * memory, beside the heap of the code, so that a quarter of its memory is for them. A container's lie in a tmpfs of half
 * its memory, which its programs share with what they write.
 */
export function roomProblem(
  executor: string,
  limits: Limits,
  files: readonly Pick<TaskFile, 'path' | 'size'>[],
): Missing | null {
  if (executor !== 'isolate' && executor !== 'docker') return null
  const large = files.find((file) => file.size > eachBytes)
  if (large !== undefined)
    return {
      what: `smaller files: this target takes files of at most 64 MiB each, and ${showPath(large.path)} has ${mebibytes(large.size)} MiB`,
      fix: 'Remove or split that file, or submit the task to a target with a disk of its own.',
    }
  const most =
    executor === 'isolate'
      ? Math.min(allBytes, Math.floor((limits.memory_mb * mib) / 4))
      : Math.min(allBytes, Math.floor((workFolderMb(limits) * mib * 3) / 4))
  const size = executor === 'isolate' ? (bytes: number): number => bytes : inPages
  const all = files.reduce((sum, file) => sum + size(file.size), 0)
  if (all <= most) return null
  return {
    what: `room: with ${limits.memory_mb} MB of memory this target takes ${mebibytes(most)} MiB of files, and the task has ${mebibytes(all)} MiB`,
    fix: 'Remove files, ask for more memory where a constraint lowered it, or submit the task to a target with more.',
  }
}

/** A tmpfs keeps whole pages. */
function inPages(bytes: number): number {
  return Math.ceil(bytes / 4096) * 4096
}

function mebibytes(bytes: number): string {
  return (bytes / mib).toFixed(1).replace(/\.0$/, '')
}
