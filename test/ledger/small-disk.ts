import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { folder } from './folder.ts'

export interface SmallDisk {
  readonly path: string
  remount(mode: 'ro' | 'rw'): void
}

/** A file system of `kib` KiB in memory, or null where this user may not mount one. */
export function smallDisk(kib: number): SmallDisk | null {
  const path = join(folder(), 'disk')
  mkdirSync(path)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${kib}k`, 'tmpfs', path], { stdio: 'ignore' })
  } catch (error) {
    if (error instanceof Error) return null
    throw error
  }
  onTestFinished(() => void execFileSync('umount', ['-l', path]))
  return { path, remount: (mode) => void execFileSync('mount', ['-o', `remount,${mode}`, path]) }
}

export const whyNoDisk =
  'mounting a small file system needs root: run this test as root, or in a container with CAP_SYS_ADMIN'
