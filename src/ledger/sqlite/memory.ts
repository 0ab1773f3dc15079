import type { Views } from '../ledger.ts'
import type { Database } from './database.ts'
import { countersAt, guarded, views as viewsOf } from './views.ts'

/** Answers about one thing each: small, and asked again and again while nothing is written. */
type Single = 'task' | 'execution' | 'plan' | 'approval' | 'token' | 'tokenByHash'

/** Answers kept at once; beyond it all are forgotten, for nothing here is worth choosing among them. */
const most = 256

/** Views that give the same answer without asking the database again until `forget` is called. */
export interface Memory {
  readonly views: Views
  /** Has to be called after whatever may have changed what is committed. */
  forget(): void
}

/**
 * The holder of the folder's lock is the only one who writes, so between two of its commits every view stands still: what
 * was read once is the answer. What is not there is asked again, so that guessed ids fill nothing.
 */
export function remember(db: Database): Memory {
  const views = viewsOf(db)
  const answers = new Map<string, unknown>()
  const counted = new Map<string, ReturnType<typeof countersAt> & { readonly from_ms: number }>()
  let newest: number | null = null

  const once = <K extends Single>(name: K): Views[K] => {
    const ask = views[name] as (key: string) => ReturnType<Views[K]>
    const asked = (key: string): ReturnType<Views[K]> => {
      const of = `${name} ${key}`
      const known = answers.get(of)
      if (known !== undefined) return known as ReturnType<Views[K]>
      const answer = ask(key)
      if (answer === null) return answer
      if (answers.size >= most) answers.clear()
      answers.set(of, answer)
      return answer
    }
    return asked as Views[K]
  }

  return {
    views: {
      ...views,
      task: once('task'),
      execution: once('execution'),
      plan: once('plan'),
      approval: once('approval'),
      token: once('token'),
      tokenByHash: once('tokenByHash'),
      counters(tenant, subject, nowMs) {
        const of = JSON.stringify([tenant, subject])
        const known = counted.get(of)
        // A clock that was set back counts again.
        if (known !== undefined && known.from_ms <= nowMs && nowMs < known.until_ms) return known.counters
        const now = guarded(() => countersAt(db, tenant, subject, nowMs))
        if (counted.size >= most) counted.clear()
        counted.set(of, { ...now, from_ms: nowMs })
        return now.counters
      },
      newestTimeMs: () => (newest ??= views.newestTimeMs()),
    },
    forget() {
      answers.clear()
      counted.clear()
      newest = null
    },
  }
}
