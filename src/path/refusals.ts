import type { Digest } from '../digest.ts'
import type { Decision } from '../policy/policy.ts'
import { denialsAccount } from '../receipt/account.ts'
import type { Caller } from '../request/caller.ts'
import type { Parts } from './parts.ts'

/**
 * The flood rule (SECURITY.md G-flood): the first refusal of a caller and code has a receipt of its own; what follows is
 * counted, and one `denials` receipt a minute and caller accounts for the counts. So 100,000 refusals cost one signature a minute.
 */
export interface Refusals {
  note(caller: Caller, code: string, decision: Decision): Promise<void>
  /** Writes what was only counted so far. Called every minute and before the broker stops. */
  flush(): Promise<void>
}

interface Tally {
  readonly caller: Caller
  readonly seen: Set<string>
  counts: Map<string, number>
  inputs: Digest[]
  from_ms: number
}

/** Callers remembered at once; the one longest silent is forgotten, and its next refusal has a receipt again. */
const maxCallers = 10_000
const maxCodes = 64
/** Digests of inputs kept between two receipts; the counts go on beyond. */
const maxInputs = 100_000

export function openRefusals(parts: Parts): Refusals {
  const tallies = new Map<string, Tally>()

  const tallyOf = (caller: Caller): Tally => {
    const key = JSON.stringify([caller.tenant, caller.subject.id, caller.agent.id])
    const known = tallies.get(key)
    if (known !== undefined) return known
    if (tallies.size >= maxCallers) {
      const quiet = [...tallies].find(([, tally]) => tally.counts.size === 0)?.[0] ?? tallies.keys().next().value
      if (quiet !== undefined) tallies.delete(quiet)
    }
    const made: Tally = { caller, seen: new Set(), counts: new Map(), inputs: [], from_ms: parts.clock.now() }
    tallies.set(key, made)
    return made
  }

  const count = (tally: Tally, code: string, input: Digest): void => {
    if (tally.counts.size === 0) tally.from_ms = parts.clock.now()
    tally.counts.set(code, (tally.counts.get(code) ?? 0) + 1)
    if (tally.inputs.length < maxInputs) tally.inputs.push(input)
  }

  return {
    async note(caller, code, decision) {
      const tally = tallyOf(caller)
      if (tally.seen.has(code) || tally.seen.size >= maxCodes) {
        count(tally, code, decision.input_digest)
        return
      }
      tally.seen.add(code)
      try {
        await parts.ledger.append(
          {
            kind: 'refused',
            tenant: caller.tenant,
            caller: caller.subject.id,
            code,
            input: decision.input_digest,
            at_ms: decision.at_ms,
          },
          {
            kind: 'sign',
            execution: null,
            account: denialsAccount({
              from_ms: decision.at_ms,
              until_ms: decision.at_ms,
              counts: { [code]: 1 },
              inputs: [decision.input_digest],
              callers: [caller.subject.id],
            }),
          },
        )
      } catch (unwritten) {
        count(tally, code, decision.input_digest)
        throw unwritten
      }
    },
    async flush() {
      for (const tally of tallies.values()) {
        if (tally.counts.size === 0) continue
        const counts = Object.fromEntries(tally.counts)
        const { caller, from_ms, inputs } = tally
        // A clock that was set back makes no period that ends before it begins: no receipt could say so.
        const until_ms = Math.max(from_ms, parts.clock.now())
        tally.counts = new Map()
        tally.inputs = []
        try {
          await parts.ledger.append({
            kind: 'sign',
            execution: null,
            account: denialsAccount({ from_ms, until_ms, counts, inputs, callers: [caller.subject.id] }),
          })
        } catch (unwritten) {
          // Owed still: the next flush accounts for these with what came since.
          for (const [code, times] of Object.entries(counts))
            tally.counts.set(code, (tally.counts.get(code) ?? 0) + times)
          tally.inputs = [...inputs, ...tally.inputs].slice(0, maxInputs)
          tally.from_ms = from_ms
          throw unwritten
        }
      }
    },
  }
}
