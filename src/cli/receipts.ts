import { WritError } from '../error.ts'
import { parseId } from '../id.ts'
import { parseCompact, parsePayload } from '../jws.ts'
import { type Context, folderFor, withViews, yes } from './context.ts'
import { ago, show, table } from './print.ts'

export function receiptsList(context: Context, limit: number): number {
  const { folder } = folderFor(context)
  const rows = withViews(folder, [], (views) => {
    const { size } = views.logHead()
    return views
      .receipts(Math.max(0, size - limit), limit)
      .map(({ id, index, kind, execution, at_ms, digest }) => ({ id, index, kind, execution, at_ms, digest }))
  })
  const now = Date.now()
  show(context, { receipts: rows }, () =>
    table(
      ['index', 'receipt', 'kind', 'execution', 'when'],
      rows.map((r) => [String(r.index), r.id, r.kind, r.execution ?? '', ago(r.at_ms, now)]),
    ),
  )
  return yes
}

/** The log as an auditor takes it away: each entry byte for byte, in order. */
export function receiptsExport(context: Context): number {
  const { folder } = folderFor(context)
  return withViews(folder, yes, (views) => {
    const { size } = views.logHead()
    for (let from = 0; from < size; from += 1000)
      for (const row of views.receipts(from, Math.min(1000, size - from))) context.say(row.jws)
    return yes
  })
}

/** What the approvals of the log rest on: each statement an approver signed, oldest first. */
export function statementsExport(context: Context): number {
  const { folder } = folderFor(context)
  return withViews(folder, yes, (views) => {
    for (const approval of views.approvals({}, 1_000_000).toReversed())
      for (const { jws } of approval.verdicts) if (jws !== null) context.say(jws)
    return yes
  })
}

export function receiptsShow(context: Context, text: string, jws: boolean): number {
  const { folder } = folderFor(context)
  const id = parseId('rcpt', text)
  const found = withViews(folder, null, (views) => {
    const receipt = id === null ? null : views.receipt(id)
    return receipt === null || id === null ? null : { receipt, disclosures: views.disclosures(id) }
  })
  if (found === null)
    throw new WritError('not_found', `There is no receipt ${text} in this ledger.`, {
      remedy: '"writ receipts list" shows what there is.',
    })
  if (jws) {
    context.say(found.receipt.jws)
    return yes
  }
  const claims = parsePayload(parseCompact(found.receipt.jws, 'writ-receipt+jwt').payloadBytes)
  const disclosed = found.disclosures.map(
    (disclosure) => JSON.parse(Buffer.from(disclosure, 'base64url').toString('utf8')) as unknown,
  )
  show(context, { ...found.receipt, claims, disclosed }, () =>
    [
      `${found.receipt.id}  ${found.receipt.kind} at index ${String(found.receipt.index)}`,
      `digest ${found.receipt.digest}`,
      JSON.stringify(claims, null, 2),
      ...(disclosed.length > 0 ? ['withheld from callers, by disclosure:'] : []),
      ...disclosed.map((one) => `  ${JSON.stringify((one as unknown[]).slice(1))}`),
    ].join('\n'),
  )
  return yes
}
