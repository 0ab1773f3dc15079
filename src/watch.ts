import { realpathSync, statSync, watch } from 'node:fs'
import type { FSWatcher } from 'node:fs'
import { dirname } from 'node:path'
import { systemCode } from './error.ts'

/** An editor writes a file in several steps: looked at when they pause, and all the same when they do not. */
const pauseMs = 100
const longestPauseMs = 500
/** Where the system's watcher works, looking only catches what it misses: a network disk, a link turned elsewhere. */
const lookMs = 2000
const lookAloneMs = 400

interface Watched {
  readonly watcher: FSWatcher
  readonly inode: number
  readonly recursive: boolean
}

export interface Follower {
  /** Resolves when nothing runs any more and nothing will. */
  close(): Promise<void>
}

/**
 * Calls `changed` shortly after what `state` tells became another: one at a time, and again where it changed meanwhile.
 * `paths` are the files and folders to have watched, folders with all below them, links where they lie and where they
 * lead; they need not be there. Neither may reject. Does not keep the process alive. The state is known when this resolves.
 */
export async function follow(options: {
  paths(): readonly string[]
  state(): Promise<string>
  changed(): Promise<void>
}): Promise<Follower> {
  const watched = new Map<string, Watched>()
  let closed = false
  let due: NodeJS.Timeout | null = null
  let firstTouch = 0
  let timer: NodeJS.Timeout | null = null
  let work: Promise<void> = Promise.resolve()
  let looking: Promise<void> = Promise.resolve()
  let last = await options.state()

  const forget = (folder: string): void => {
    watched.get(folder)?.watcher.close()
    watched.delete(folder)
  }

  /** A watcher for each folder that is there now; one whose folder was put in another's place is made anew. */
  const attend = (): boolean => {
    const wanted = options.paths().map(placesOf)
    const all = new Map<string, boolean>()
    for (const { folders } of wanted)
      for (const [folder, recursive] of folders) all.set(folder, recursive || all.get(folder) === true)
    for (const folder of watched.keys()) if (!all.has(folder)) forget(folder)
    for (const [folder, recursive] of all) {
      try {
        const inode = statSync(folder).ino
        const known = watched.get(folder)
        if (known?.inode === inode && known.recursive === recursive) continue
        forget(folder)
        const watcher = watch(folder, { recursive, persistent: false }, touch)
        watcher.on('error', () => forget(folder))
        watched.set(folder, { watcher, inode, recursive })
      } catch (error) {
        // No such folder yet, or no more watches to be had: looking sees it.
        if (systemCode(error) === null) throw error
        forget(folder)
      }
    }
    return wanted.every(({ there }) => there) && [...all.keys()].every((folder) => watched.has(folder))
  }

  const touch = (): void => {
    if (closed) return
    const now = performance.now()
    if (due === null) firstTouch = now
    else clearTimeout(due)
    due = setTimeout(
      () => {
        due = null
        check()
      },
      Math.max(0, Math.min(pauseMs, firstTouch + longestPauseMs - now)),
    )
    due.unref()
  }

  const check = (): void => {
    work = work.then(async () => {
      if (closed) return
      attend()
      const now = await options.state()
      if (closed || now === last) return
      last = now
      await options.changed()
    })
  }

  const look = async (): Promise<void> => {
    const all = attend()
    if ((await options.state()) !== last) touch()
    if (closed) return
    timer = setTimeout(
      () => {
        looking = look()
      },
      all ? lookMs : lookAloneMs,
    )
    timer.unref()
  }

  looking = look()
  return {
    async close() {
      closed = true
      if (due !== null) clearTimeout(due)
      for (const folder of watched.keys()) forget(folder)
      await looking
      if (timer !== null) clearTimeout(timer)
      await work
    },
  }
}

/** The folders in which a change of this path shows, and whether all below them matters; `there` where it leads somewhere. */
function placesOf(path: string): {
  readonly folders: readonly (readonly [folder: string, recursive: boolean])[]
  readonly there: boolean
} {
  try {
    const real = realpathSync(path)
    if (statSync(real).isDirectory())
      return {
        folders: [
          [dirname(path), false],
          [real, true],
        ],
        there: true,
      }
    return {
      folders: [
        [dirname(path), false],
        [dirname(real), false],
      ],
      there: true,
    }
  } catch (error) {
    if (systemCode(error) === null) throw error
    return { folders: [[dirname(path), false]], there: false }
  }
}
