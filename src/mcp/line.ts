/** Who stands in line for something of which there is little at once; callers take turns, so a long line of one keeps no other waiting. */
export interface Line {
  /** A place, given back by disposing of it; null where the signal aborted before there was one. Never rejects. */
  enter(caller: string, signal: AbortSignal): Promise<Disposable | null>
  readonly waiting: number
}

export function openLine(places: number): Line {
  /** In the order in which callers are next. */
  const lines = new Map<string, Set<() => void>>()
  let free = places
  let waiting = 0
  const next = (): void => {
    for (const [caller, line] of lines) {
      const [first] = line
      lines.delete(caller)
      if (first === undefined) continue
      line.delete(first)
      if (line.size > 0) lines.set(caller, line)
      first()
      return
    }
    free++
  }
  const place = (): Disposable => {
    let held = true
    return {
      [Symbol.dispose]: () => {
        if (!held) return
        held = false
        next()
      },
    }
  }
  return {
    async enter(caller, signal) {
      if (signal.aborted) return null
      if (free > 0) {
        free--
        return place()
      }
      return await new Promise<Disposable | null>((resolve) => {
        const line = lines.get(caller) ?? new Set()
        lines.set(caller, line)
        waiting++
        const leave = (): void => {
          if (line.delete(go)) {
            waiting--
            resolve(null)
          }
        }
        const go = (): void => {
          waiting--
          signal.removeEventListener('abort', leave)
          resolve(place())
        }
        line.add(go)
        signal.addEventListener('abort', leave, { once: true })
      })
    },
    get waiting() {
      return waiting
    },
  }
}
