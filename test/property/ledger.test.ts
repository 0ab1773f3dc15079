import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'
import { finalStates, isFinal, liveStates, transitions } from '../../src/execution/execution.ts'
import type { ExecutionState } from '../../src/execution/execution.ts'
import { newId } from '../../src/id.ts'
import type { Entry, Ledger, Step } from '../../src/ledger/ledger.ts'
import { viewTables } from '../../src/ledger/sqlite/schema.ts'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import { createFrontier } from '../../src/receipt/tree.ts'
import {
  handClock,
  life,
  sampleDecision,
  sampleReport,
  sampleTask,
  sampleToken,
  sampleVerdict,
  signed,
  testSigner,
  waiting,
} from '../ledger/sample.ts'

const signer = testSigner()
const stepKinds: readonly Step['kind'][] = [
  'task',
  'planned',
  'decided',
  'state',
  'approval_opened',
  'verdict',
  'approval_closed',
  'permit_spent',
  'lease_intended',
  'leased',
  'lease_ended',
  'outcome',
  'idempotency',
  'refused',
  'generation',
  'approver_set',
  'token_created',
  'token_revoked',
  'roles_seen',
  'receipt',
]
const states = [...liveStates, ...finalStates]

/** Runs `use` over an empty ledger and a look at its tables. */
async function withLedger(
  use: (ledger: Ledger, path: string, setClock: (ms: number) => void) => Promise<void>,
): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'writ-property-'))
  const path = join(dir, 'ledger.db')
  const clock = handClock()
  const ledger = openSqliteLedger({ path, signer, clock, reserveBytes: 4096 })
  try {
    await use(ledger, path, (ms) => clock.set(ms))
  } finally {
    ledger.close()
    rmSync(dir, { recursive: true, force: true })
  }
}

/** Every row of every view, in an order of its own. */
function dump(path: string): Readonly<Record<string, readonly string[]>> {
  const db = new DatabaseSync(path, { readOnly: true })
  try {
    return Object.fromEntries(
      viewTables.map((table) => [
        table,
        db
          .prepare(`SELECT * FROM ${table}`)
          .all()
          .map((row) => JSON.stringify(row))
          .toSorted(),
      ]),
    )
  } finally {
    db.close()
  }
}

/** One move of a random history: what is asked of which of the executions there are. Many are illegal on purpose. */
const move = fc.record({
  at: fc.nat(2),
  what: fc.nat(18),
  state: fc.constantFrom(...states),
  pick: fc.nat(3),
  clock: fc.integer({ min: -1000, max: 1000 }),
})

it('refuses exactly the illegal, and rebuilds every view of any history row for row', { timeout: 60_000 }, async () => {
  let taken = 0
  let refused = 0
  const seen = new Set<string>()
  await fc.assert(
    fc.asyncProperty(fc.array(move, { minLength: 60, maxLength: 140 }), async (moves) => {
      await withLedger(async (ledger, path, setClock) => {
        const lives = Array.from({ length: 3 }, (_, i) =>
          waiting(
            sampleTask({
              owner: i % 2 === 0 ? 'ada' : 'bob',
              files: [{ path: 'f', sha256: digestOf(`${i % 3}`), size: 1, executable: false }],
            }),
          ),
        )
        const leases = lives.map(() => newId('lease'))
        const tokens = lives.map(() => sampleToken())
        const batch = ({
          at,
          what,
          state,
          pick,
        }: {
          at: number
          what: number
          state: ExecutionState
          pick: number
        }): readonly Entry[] => {
          const one = lives[at]
          const lease = leases[at]
          const token = tokens[at]
          if (one === undefined || lease === undefined || token === undefined) return []
          const { execution, approval } = one
          const person = ['bob', 'eve', 'joe', 'ann'][pick] ?? 'ann'
          const ends = (['satisfied', 'rejected', 'expired', 'superseded'] as const)[pick] ?? 'expired'
          const all: readonly (readonly Entry[])[] = [
            one.open,
            one.queue,
            one.start,
            one.end(
              state === 'failed' ? 'failed' : 'succeeded',
              sampleReport({ files: [{ path: 'o', sha256: digestOf(`out${pick}`), size: pick }] }),
            ),
            [{ kind: 'state', execution, state, ran: pick > 1, reasons: [] }],
            [
              {
                kind: 'state',
                execution,
                state: 'queued',
                ran: false,
                reasons: [{ code: 'c', message: 'm', remedy: 'r', ref: 'x' }],
              },
            ],
            [
              { kind: 'verdict', approval: approval.id, verdict: sampleVerdict(approval, person) },
              signed('approval', execution),
            ],
            [{ kind: 'approval_closed', approval: approval.id, state: ends, execute_by_ms: pick }],
            [{ kind: 'lease_intended', lease, execution, credentials: ['a', 'b'] }],
            [{ kind: 'leased', lease, expires_at_ms: pick === 0 ? null : pick }],
            [{ kind: 'lease_ended', lease, revocation: pick > 1 ? 'done' : 'pending' }],
            [{ kind: 'task', task: { ...one.task, revision: 1 + pick, target_ref: `t${pick}` } }],
            [
              {
                kind: 'idempotency',
                tenant: 'acme',
                subject: one.task.owner,
                key: `k${pick}`,
                request: digestOf(`${at}`),
                result: execution,
              },
            ],
            [
              { kind: 'refused', tenant: 'acme', caller: person, code: 'c', input: digestOf(''), at_ms: pick },
              signed('denials', null, { salted: { who: person } }),
            ],
            [
              { kind: 'generation', number: at, digest: digestOf(`${pick}`), packs: [] },
              { kind: 'approver_set', digest: digestOf(`${at}`), approvers: [] },
              signed('policy'),
            ],
            [
              { kind: 'decided', execution, decision: sampleDecision('allow'), input: null },
              signed('decision', execution),
            ],
            [{ kind: 'token_created', token }, signed('policy')],
            [{ kind: 'token_revoked', token: token.id }, signed('policy')],
            [
              {
                kind: 'roles_seen',
                seen: {
                  tenant: 'acme',
                  subject: person,
                  agent: `g${at}`,
                  roles: [`r${pick}`],
                  as_of_ms: pick,
                  until_ms: 9,
                },
              },
            ],
          ]
          return all[what] ?? []
        }
        const results: Promise<boolean>[] = []
        for (const [i, each] of moves.entries()) {
          setClock(1_800_000_000_000 + each.clock)
          results.push(
            ledger.append(...batch(each)).then(
              () => true,
              (error: unknown) => {
                if (error instanceof WritError && error.code === 'conflict') return false
                throw error
              },
            ),
          )
          // Some commits carry one batch, some many.
          if (i % (1 + each.pick) === 0) await results.at(-1)
        }
        for (const done of await Promise.all(results))
          if (done) taken++
          else refused++

        const before = dump(path)
        ledger.rebuild()
        expect(dump(path)).toEqual(before)

        const frontier = createFrontier()
        for (const row of ledger.views.receipts(0, 1_000)) frontier.append(row.jws)
        expect(ledger.views.logHead()).toMatchObject({ size: frontier.size, root: frontier.root().toString('base64') })
        expect(wrongs(ledger, seen)).toEqual([])
      })
    }),
    { numRuns: 40 },
  )
  // A property over histories that are all refused, or all taken, would say nothing.
  expect(Math.min(taken, refused)).toBeGreaterThan(100)
  expect([...seen].toSorted()).toEqual(stepKinds.toSorted())
})

/** What no history may show, read from the steps alone: the ways in which this one is wrong. */
function wrongs(ledger: Ledger, seen: Set<string>): readonly string[] {
  const last = new Map<string, ExecutionState>()
  const once = new Set<string>()
  const closed = new Set<string>()
  const found: string[] = []
  const only = (what: string) => (once.has(what) ? found.push(`twice: ${what}`) : once.add(what))
  let time = 0
  for (const { step, at_ms } of ledger.steps(0, 10_000)) {
    seen.add(step.kind)
    if (at_ms < time) found.push('time runs backwards')
    time = at_ms
    if (step.kind === 'state') {
      const from = last.get(step.execution)
      const legal = from === undefined ? transitions.new : isFinal(from) ? [] : transitions[from]
      if (!legal.includes(step.state)) found.push(`${from ?? 'new'} became ${step.state}`)
      last.set(step.execution, step.state)
    }
    if (step.kind === 'permit_spent' || step.kind === 'outcome') only(`${step.kind} ${step.execution}`)
    if (step.kind === 'receipt' && step.receipt.kind === 'outcome') only(`outcome receipt ${step.execution}`)
    if (step.kind === 'verdict') {
      only(`verdict ${step.approval} ${step.verdict.by}`)
      if (closed.has(step.approval)) found.push('a verdict after the end')
    }
    if (step.kind === 'approval_closed') closed.add(step.approval)
  }
  for (const [execution, state] of last) {
    const ran = once.has(`permit_spent ${execution}`)
    if (state === 'running' && !ran) found.push('a run without a permit')
    if (ran && isFinal(state) && !once.has(`outcome receipt ${execution}`)) found.push('an end without a receipt')
  }
  return found
}

it('[G-single-use] lets one of any number of racing starts through, whatever else rides in the same commit', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 2, max: 8 }), fc.nat(3), async (racers, noise) => {
      await withLedger(async (ledger) => {
        const one = life()
        await ledger.append(...one.queue)
        const starts = Array.from({ length: racers }, async () => {
          const decision = sampleDecision('allow')
          await ledger.append(
            { kind: 'decided', execution: one.execution, decision, input: null },
            signed('decision', one.execution),
            { kind: 'permit_spent', execution: one.execution, plan: one.digest, decision: decision.id },
            { kind: 'state', execution: one.execution, state: 'running', ran: true, reasons: [] },
          )
        })
        const others = Array.from({ length: noise }, async () => await ledger.append(signed('policy')))
        const settled = await Promise.allSettled(starts)
        await Promise.all(others)
        expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
        expect(ledger.views.logHead().size).toBe(2 + noise)
      })
    }),
    { numRuns: 10 },
  )
})
