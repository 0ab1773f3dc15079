import { statSync, watch } from 'node:fs'
import type { FSWatcher } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { systemCode } from '../error.ts'

/** An editor writes a file in several steps; the last one counts. */
const debounceMs = 100
/** Where the system's watcher works, looking at the files only catches what it misses, as on a network disk. */
const netMs = 2000
const pollMs = 400

/** Names, sizes and times of a folder's policy files; the cause where it cannot be read, so that its return is a change. */
async function signature(folder: string): Promise<string> {
  try {
    const names = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.rego')).sort()
    const stats = await Promise.all(names.map(async (name) => await stat(join(folder, name))))
    return names.map((name, at) => `${name} ${stats[at]?.size} ${stats[at]?.mtimeMs} ${stats[at]?.ino}`).join('\n')
  } catch (error) {
    return systemCode(error) ?? 'unreadable'
  }
}

async function signatures(paths: readonly string[]): Promise<string> {
  return JSON.stringify(await Promise.all(paths.map(async (path) => [path, await signature(path)])))
}

interface Watched {
  readonly watcher: FSWatcher
  readonly inode: number
}

/**
 * Calls `changed` shortly after a policy file in one of the folders changed, also when a folder was not there before.
 * `changed` never runs twice at once and must not reject. Does not keep the process alive.
 */
export async function followFolders(
  paths: () => readonly string[],
  changed: () => Promise<void>,
): Promise<{ close(): Promise<void> }> {
  const watched = new Map<string, Watched>()
  let closed = false
  let due: NodeJS.Timeout | null = null
  let poll: NodeJS.Timeout | null = null
  let looking: Promise<void> = Promise.resolve()
  let work: Promise<void> = Promise.resolve()
  let last = await signatures(paths())

  const forget = (path: string): void => {
    watched.get(path)?.watcher.close()
    watched.delete(path)
  }

  const touch = (): void => {
    if (closed) return
    if (due !== null) clearTimeout(due)
    due = setTimeout(() => {
      due = null
      work = work.then(async () => {
        last = await signatures(paths())
        attend()
        await changed()
      })
    }, debounceMs)
    due.unref()
  }

  /** A watcher for each folder that is there now; one whose folder was put in another's place is made anew. */
  const attend = (): void => {
    if (closed) return
    const wanted = paths()
    for (const path of watched.keys()) if (!wanted.includes(path)) forget(path)
    for (const path of wanted) {
      try {
        const inode = statSync(path).ino
        if (watched.get(path)?.inode === inode) continue
        forget(path)
        const watcher = watch(path, { recursive: true, persistent: false }, touch)
        watcher.on('error', () => {
          forget(path)
        })
        watched.set(path, { watcher, inode })
      } catch (error) {
        // No such folder yet, or no more watches to be had: the polling sees it.
        if (systemCode(error) === null) throw error
        forget(path)
      }
    }
  }

  const look = async (): Promise<void> => {
    attend()
    const now = await signatures(paths())
    if (now !== last) touch()
    if (closed) return
    poll = setTimeout(
      () => {
        looking = look()
      },
      paths().every((path) => watched.has(path)) ? netMs : pollMs,
    )
    poll.unref()
  }

  looking = look()
  return {
    async close() {
      closed = true
      if (due !== null) clearTimeout(due)
      if (poll !== null) clearTimeout(poll)
      for (const path of watched.keys()) forget(path)
      await looking
      if (poll !== null) clearTimeout(poll)
      await work
    },
  }
}
