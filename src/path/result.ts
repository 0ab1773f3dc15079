import { WritError } from '../error.ts'
import { type Execution, isFinal, type OutputFile } from '../execution/execution.ts'
import { type Next, type Results, sentences } from '../execution/result.ts'
import { unfinished } from '../execution/visible.ts'
import type { Arguments } from '../request/call.ts'
import type { Caller } from '../request/caller.ts'
import type { TransferDesk } from './desk.ts'
import { isSuccess } from './ending.ts'
import { type Parts, reasonOf } from './parts.ts'
import { executionOf } from './read.ts'
import { artifactUri } from './resource.ts'
import { executionView, nextOf } from './view.ts'

/** Bytes of all texts that ride in one result: a run that leaves a thousand files must not fill its caller's context. */
const maxInlineBytes = 32_768

export async function getResult(
  parts: Parts,
  transfers: TransferDesk,
  caller: Caller,
  args: Arguments['get_result'],
): Promise<Results['get_result']> {
  const execution = executionOf(parts, caller, args.execution_id)
  const view = executionView(parts, execution)
  const report = execution.report
  if (!isFinal(execution.state)) return { ...view, next: nextOf(execution, view) }
  if (args.file !== undefined) return { ...view, ...(await readFile(parts, transfers, caller, execution, args)) }
  // The result is released only with the receipt that accounts for it.
  const receipt =
    parts.ledger.views.receiptsOf(execution.id).findLast((row) => row.kind === 'outcome' || row.kind === 'decision') ??
    null
  if (receipt === null) throw new WritError('internal', 'a final execution without a receipt')
  const planned = parts.ledger.views.plan(execution.plan)?.steps
  const failing = report?.steps.findIndex((step, at) => !isSuccess(step, planned?.[at])) ?? -1
  const files = []
  let room = maxInlineBytes
  for (const file of report?.files ?? []) {
    const small = file.size > room ? {} : await smallText(parts, file)
    if (small.text !== undefined) room -= file.size
    files.push({ ...file, uri: artifactUri(execution.id, file.path), ...small })
  }
  return {
    ...view,
    ...(report === null
      ? {}
      : {
          steps: report.steps,
          tail: parts.outputs.tail(execution.id, failing < 0 ? null : failing, 4096),
          files,
          withheld: { redacted: report.output.redactions, blocked: report.egress.blocked + report.withheld_files },
        }),
    receipt: { receipt_id: receipt.id, digest: receipt.digest, uri: `writ://receipts/${receipt.id}` },
    jws: receipt.jws,
    next:
      view.state === 'succeeded'
        ? { tell_user: 'Done. The receipt accounts for this run; anyone can check it with "writ verify".' }
        : nextAfterFailure(execution),
  }
}

/** Only what ran and failed is put right by other files; the rest is for people to look at. */
function nextAfterFailure({ ran, state, task, reasons: [reason] }: Execution): Next {
  if (ran && (state === 'failed' || state === 'timed_out'))
    return { tool: 'upload_artifact', arguments: { task_id: task } }
  if (reason !== undefined) return { tell_user: `${sentences(reason)} (ref ${reason.ref})` }
  return { tell_user: ran ? `It is ${state}.` : 'It did not run.' }
}

/** Text files of at most 4 KiB ride in the result itself. */
async function smallText(
  parts: Parts,
  file: { readonly sha256: Parameters<Parts['artifacts']['read']>[0]; readonly size: number },
): Promise<{ text?: string }> {
  if (file.size > 4096) return {}
  const text = textOf(await parts.artifacts.read(file.sha256, 4096))
  return text === null ? {} : { text }
}

/** Null where the bytes are no text. */
function textOf(bytes: Buffer): string | null {
  const text = bytes.toString('utf8')
  return Buffer.from(text, 'utf8').equals(bytes) && !text.includes('\u0000') ? text : null
}

/** A piece of a file, and where the next one begins; with the first of several, a URL for the whole. */
async function readFile(
  parts: Parts,
  transfers: TransferDesk,
  caller: Caller,
  execution: Execution,
  args: Arguments['get_result'],
): Promise<Pick<Results['get_result'], 'error' | 'file' | 'next'>> {
  const file = execution.report?.files.find(({ path }) => path === args.file)
  if (file === undefined) return noFile(parts, execution)
  const { part, to } = await filePart(parts, file, args.offset ?? 0, args.max_bytes ?? 8192)
  const given = part.more && part.offset === 0 ? await transfers.issueDownload(caller, execution, file) : null
  return {
    file: given === null ? part : { ...part, download_url: given.url, expires_at: given.expires_at },
    next: nextPiece(execution, args, part, to, given?.url ?? null),
  }
}

/** Pieces a caller is led through; of a file of more its context is the wrong place, where there is a URL for the whole. */
const mostPieces = 8

function nextPiece(
  execution: Execution,
  { max_bytes }: Arguments['get_result'],
  part: NonNullable<Results['get_result']['file']>,
  to: number,
  url: string | null,
): Next {
  if (!part.more) return { tell_user: part.offset === 0 ? 'That is the whole file.' : 'That is the end of the file.' }
  if (url !== null && part.size > mostPieces * (to - part.offset))
    return { tell_user: `This is the first piece. The whole file: curl -OJ '${url}'` }
  const size = max_bytes === undefined ? {} : { max_bytes }
  return { tool: 'get_result', arguments: { execution_id: execution.id, file: part.path, offset: to, ...size } }
}

function noFile(parts: Parts, execution: Execution): Pick<Results['get_result'], 'error' | 'next'> {
  const error = new WritError('not_found', 'There is no such file among those of this execution.', {
    remedy: 'Take a path that get_result lists under "files".',
  })
  return {
    error: reasonOf(parts, error),
    next: { tool: 'get_result', arguments: { execution_id: execution.id } },
  }
}

async function filePart(
  parts: Parts,
  file: OutputFile,
  offset: number,
  maxBytes: number,
): Promise<{ readonly part: NonNullable<Results['get_result']['file']>; readonly to: number }> {
  const size = Math.min(maxBytes, 1_048_576)
  const from = Math.min(offset, file.size)
  const pieces: Buffer[] = []
  let have = 0
  for await (const piece of await parts.artifacts.open(file.sha256, from)) {
    const bytes = piece as Buffer
    pieces.push(bytes.subarray(0, size - have))
    have += Math.min(bytes.length, size - have)
    if (have >= size) break
  }
  const read = Buffer.concat(pieces)
  // The beginning of a character is left to the next piece, so that a text stays one.
  const held = from + read.length < file.size ? unfinished(read) : 0
  const whole = textOf(held < read.length ? read.subarray(0, read.length - held) : read)
  const bytes = whole === null ? read : read.subarray(0, Buffer.byteLength(whole))
  const to = from + bytes.length
  const content = whole === null ? { base64: bytes.toString('base64') } : { text: whole }
  return { part: { path: file.path, offset: from, size: file.size, more: to < file.size, ...content }, to }
}
