import { expect, it } from 'vitest'
import { digestOf } from '../../../src/digest.ts'
import { newId } from '../../../src/id.ts'
import type { Entry, Ledger } from '../../../src/ledger/ledger.ts'
import { createFrontier } from '../../../src/receipt/tree.ts'
import {
  handClock,
  life,
  sampleReport,
  sampleTask,
  sampleToken,
  sampleVerdict,
  signed,
  waiting,
} from '../../ledger/sample.ts'
import { codeOf } from './opened.ts'
import type { OpenLedger } from './opened.ts'

/** What is found again, by whom and in which order. */
export function viewsContract(open: OpenLedger): void {
  it('refuses the second of two changes made from the same revision of a task, and a change of owner', async () => {
    const { ledger } = open(handClock())
    const task = sampleTask()
    const change = (over: object): Entry => ({ kind: 'task', task: { ...task, revision: 2, ...over } })
    await ledger.append({ kind: 'task', task })
    expect(
      await Promise.all([codeOf(ledger.append(change({ goal: 'a' }))), codeOf(ledger.append(change({ goal: 'b' })))]),
    ).toEqual(['done', 'conflict'])
    expect(await codeOf(ledger.append(change({ revision: 3, owner: 'eve' })))).toBe('conflict')
    expect(await codeOf(ledger.append(change({ revision: 3, tenant: 'other' })))).toBe('conflict')
    expect(ledger.views.task(task.id)?.goal).toBe('a')
    expect(ledger.views.tasks('acme', 9).map(({ id }) => id)).toEqual([task.id])
  })

  it('says whose task an artifact belongs to, within a tenant, and prefers the one who asks', async () => {
    const { ledger } = open(handClock())
    const file = { path: 'a', sha256: digestOf('a'), size: 1, executable: false }
    const [mine, theirs] = [sampleTask({ files: [file] }), sampleTask({ owner: 'bob', files: [file] })]
    await ledger.append({ kind: 'task', task: mine }, { kind: 'task', task: theirs })
    expect(ledger.views.artifactOwner(file.sha256, 'acme')).toEqual({ task: theirs.id, owner: 'bob' })
    expect(ledger.views.artifactOwner(file.sha256, 'acme', 'ada')).toEqual({ task: mine.id, owner: 'ada' })
    expect(ledger.views.artifactOwner(file.sha256, 'other', 'ada')).toBeNull()
    const one = life(sampleTask({ owner: 'eve' }))
    await ledger.append(...one.queue)
    await ledger.append(...one.start)
    await ledger.append(
      ...one.end('succeeded', sampleReport({ files: [{ path: 'out', sha256: digestOf('out'), size: 3 }] })),
    )
    expect(ledger.views.artifactOwner(digestOf('out'), 'acme')).toEqual({ task: one.task.id, owner: 'eve' })
  })

  it('lists executions by tenant, owner, task and state, newest first', async () => {
    const { ledger } = open(handClock())
    const [one, two, three] = [life(), life(), life(sampleTask({ owner: 'bob' }))]
    for (const each of [one, two, three]) await ledger.append(...each.queue)
    await ledger.append(...two.start)
    const ids = (filter: Parameters<Ledger['views']['executions']>[0], limit = 9) =>
      ledger.views.executions(filter, limit).map(({ id }) => id)
    expect(ids({ tenant: 'acme' })).toEqual([three.execution, two.execution, one.execution])
    expect(ids({ tenant: 'acme' }, 1)).toEqual([three.execution])
    expect(ids({ tenant: 'acme', owner: 'ada' })).toEqual([two.execution, one.execution])
    expect(ids({ state: ['running'] })).toEqual([two.execution])
    expect(ids({ state: [] })).toEqual([])
    expect(ids({ task: three.task.id })).toEqual([three.execution])
    expect(ledger.views.plan(one.digest)).toEqual(one.plan)
    expect(ledger.views.plan(digestOf('none'))).toBeNull()
  })

  it('counts a subject’s executions, denials and running work inside their windows', async () => {
    const clock = handClock(10_000_000)
    const { ledger } = open(clock)
    const [one, two] = [life(), life()]
    await ledger.append(...one.queue)
    await ledger.append(...one.start)
    await ledger.append(...two.queue, {
      kind: 'state',
      execution: two.execution,
      state: 'denied',
      ran: false,
      reasons: [],
    })
    await ledger.append({
      kind: 'refused',
      tenant: 'acme',
      caller: 'ada',
      code: 'denied',
      input: digestOf(''),
      at_ms: 10_000_000,
    })
    expect(ledger.views.counters('acme', 'ada', 10_000_001)).toEqual({ executions_60m: 2, denied_10m: 2, running: 1 })
    expect(ledger.views.counters('acme', 'ada', 10_000_000 + 600_000)).toEqual({
      executions_60m: 2,
      denied_10m: 0,
      running: 1,
    })
    expect(ledger.views.counters('acme', 'ada', 10_000_000 + 3_600_000)).toEqual({
      executions_60m: 0,
      denied_10m: 0,
      running: 1,
    })
    expect(ledger.views.counters('acme', 'bob', 10_000_001)).toEqual({ executions_60m: 0, denied_10m: 0, running: 0 })
    expect(ledger.views.counters('other', 'ada', 10_000_001)).toEqual({
      executions_60m: 0,
      denied_10m: 0,
      running: 0,
    })
  })

  it('reads the steps of one execution, approvals, verdicts and leases included', async () => {
    const { ledger } = open(handClock())
    const [one, other] = [waiting(), life()]
    await ledger.append(...one.open)
    await ledger.append(...other.queue)
    await ledger.append({ kind: 'verdict', approval: one.approval.id, verdict: sampleVerdict(one.approval, 'bob') })
    const kinds = (after?: number) => ledger.read(one.execution, after).map(({ step }) => step.kind)
    expect(kinds()).toEqual(['planned', 'decided', 'receipt', 'approval_opened', 'state', 'verdict'])
    expect(kinds(6)).toEqual(['verdict'])
  })

  it('answers for ids nobody has with nothing', () => {
    const { ledger } = open(handClock())
    const { views } = ledger
    expect([
      views.task(newId('task')),
      views.execution(newId('exec')),
      views.approval(newId('apr')),
      views.receipt(newId('rcpt')),
      views.generation(),
      views.approverSet(),
    ]).toEqual([null, null, null, null, null, null])
    expect([
      views.receiptsOf(newId('exec')),
      views.decisions(newId('exec')),
      views.disclosures(newId('rcpt')),
      views.receipts(0, 9),
    ]).toEqual([[], [], [], []])
    expect(views.logHead()).toMatchObject({ size: 0, root: createFrontier().root().toString('base64') })
    expect(views.newestTimeMs()).toBe(0)
  })

  it('keeps the newest generation and approver set', async () => {
    const { ledger } = open(handClock())
    await ledger.append(
      { kind: 'generation', number: 1, digest: digestOf('1'), packs: [] },
      { kind: 'approver_set', digest: digestOf('a'), approvers: [] },
    )
    await ledger.append({ kind: 'generation', number: 2, digest: digestOf('2'), packs: [{ pack: 'org' }] })
    expect(ledger.views.generation()).toEqual({ number: 2, digest: digestOf('2') })
    expect(ledger.views.approverSet()).toBe(digestOf('a'))
  })

  it('finds a token by its id, its hash and its subject, and knows when it was revoked', async () => {
    const clock = handClock(5_000)
    const { ledger, reopen } = open(clock)
    const [one, two, three] = [sampleToken(), sampleToken(), sampleToken({ tenant: 'globex' })]
    for (const token of [one, two, three]) await ledger.append({ kind: 'token_created', token })
    clock.set(6_000)
    await ledger.append({ kind: 'token_revoked', token: one.id })
    const live = { ...two, revoked_at_ms: null }
    const gone = { ...one, revoked_at_ms: 6_000 }
    const look = ({ views }: Ledger): readonly unknown[] => [
      views.token(one.id),
      views.tokenByHash(two.hash),
      views.tokens({ tenant: 'acme', subject: 'ada' }, 9),
      views.tokens(null, 1),
      views.token(newId('tok')),
      views.tokenByHash(digestOf('another')),
    ]
    const expected = [gone, live, [live, gone], [{ ...three, revoked_at_ms: null }], null, null]
    expect(look(ledger)).toEqual(expected)
    expect(look(reopen())).toEqual(expected)
  })

  it('[G-token-revoked] refuses a token twice, a hash twice, and the revocation of what is revoked or was never made', async () => {
    const { ledger } = open(handClock())
    const token = sampleToken()
    await ledger.append({ kind: 'token_created', token }, { kind: 'token_revoked', token: token.id })
    const refused: readonly Entry[] = [
      { kind: 'token_created', token },
      { kind: 'token_created', token: sampleToken({ hash: token.hash }) },
      { kind: 'token_created', token: sampleToken({ id: token.id }) },
      { kind: 'token_revoked', token: token.id },
      { kind: 'token_revoked', token: newId('tok') },
    ]
    for (const entry of refused) expect(await codeOf(ledger.append(entry))).toBe('conflict')
    expect(ledger.steps(0, 9)).toHaveLength(2)
  })

  it('keeps the newest roles seen of each agent of a subject, and takes none that were issued earlier', async () => {
    const { ledger } = open(handClock())
    const seen = { tenant: 'acme', subject: 'corp:ada', agent: 'a', roles: ['x'], as_of_ms: 10, until_ms: 99 }
    const [again, other] = [
      { ...seen, roles: [], until_ms: 100 },
      { ...seen, agent: 'b', as_of_ms: 1 },
    ]
    for (const one of [seen, again, other, { ...seen, tenant: 'globex' }])
      await ledger.append({ kind: 'roles_seen', seen: one })
    expect(await codeOf(ledger.append({ kind: 'roles_seen', seen: { ...seen, as_of_ms: 9 } }))).toBe('conflict')
    expect(ledger.views.seenRoles('acme', 'corp:ada')).toEqual([again, other])
    expect(ledger.views.seenRoles('acme', 'corp:bob')).toEqual([])
  })

  it('finds receipts by id, by execution and by place in the log', async () => {
    const { ledger } = open(handClock(7_000))
    const one = life()
    await ledger.append(signed('genesis'))
    const { receipts } = await ledger.append(...one.queue)
    const [receipt] = receipts
    if (receipt === undefined) throw new Error('a receipt was asked for')
    const row = {
      id: receipt.id,
      index: 1,
      kind: 'decision',
      execution: one.execution,
      task: one.task.id,
      at_ms: 7_000,
      jws: receipt.jws,
      digest: receipt.digest,
    }
    expect(ledger.views.receipt(receipt.id)).toEqual(row)
    expect(ledger.views.receiptsOf(one.execution)).toEqual([row])
    expect(ledger.views.receipts(1, 5)).toEqual([row])
    expect(ledger.views.receipts(0, 1).map(({ kind }) => kind)).toEqual(['genesis'])
  })
}
