import { closeSync, openSync, readFileSync, readSync, writeSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ReadStream } from 'node:tty'
import { isSeq, parseDocument } from 'yaml'
import { agentKeys, agentSign } from '../approval/agent.ts'
import type { Approval, VerdictWord } from '../approval/approval.ts'
import { keyFilePath, makeKeyFile, openKeyFile } from '../approval/keyfile.ts'
import { makeStatement } from '../approval/statement.ts'
import { standing } from '../approval/requirement.ts'
import { loadConfig } from '../config.ts'
import { askBroker } from '../control/control.ts'
import { canonical, digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import { publicKey, signCompact, signingInput } from '../jws.ts'
import { type Context, configOf, folderFor, no, withViews, yes } from './context.ts'
import { ago, show, table } from './print.ts'

export interface ApproveOptions {
  readonly as?: string | undefined
  readonly stage?: string | undefined
  readonly reason?: string | undefined
  readonly key?: string | undefined
  readonly sshAgent?: boolean | undefined
  readonly passphraseFd?: number | undefined
  readonly yes?: boolean | undefined
}

export function approvalsList(context: Context, all: boolean): number {
  const { folder } = folderFor(context)
  const now = Date.now()
  const rows = withViews(folder, [], (views) =>
    views.approvals(all ? {} : { state: 'open' }, 200).map((approval) => ({
      approval_id: approval.id,
      state: approval.state,
      execution_id: approval.execution,
      target: views.plan(approval.plan)?.target.ref ?? '',
      project: views.plan(approval.plan)?.task.project_name ?? '',
      asked_by: views.plan(approval.plan)?.task.owner ?? '',
      stages: standing(approval).stages,
      opened_at_ms: approval.opened_at_ms,
      expires_at_ms: approval.expires_at_ms,
    })),
  )
  show(context, { approvals: rows }, () =>
    table(
      ['approval', 'state', 'target', 'project', 'asked by', 'needs', 'asked', 'expires'],
      rows.map((row) => [row.approval_id, row.state, row.target, row.project, row.asked_by, row.stages.map((s) => `${s.roles.join('|')} ${String(s.have)}/${String(s.needed)}`).join(', '), ago(row.opened_at_ms, now), new Date(row.expires_at_ms).toISOString()]),
    ),
  )
  return yes
}

interface Shown {
  readonly approval: Approval
  readonly payload: string
  readonly origin: string
}

async function fetchApproval(context: Context, id: string): Promise<Shown> {
  const { folder } = folderFor(context)
  return (await askBroker(folder.controlSocket, 'approval', id)) as unknown as Shown
}

export async function approvalsShow(context: Context, id: string): Promise<number> {
  const shown = await fetchApproval(context, id)
  show(context, shown, () => `${shown.payload}\nState         ${shown.approval.state}`)
  return yes
}

/** Shows the payload in full, then signs over the digest of the very text that was shown. */
export async function approvalsAnswer(context: Context, id: string, verdict: VerdictWord, options: ApproveOptions): Promise<number> {
  const { config, folder } = folderFor(context)
  const shown = await fetchApproval(context, id)
  const { approval } = shown
  if (approval.state !== 'open') {
    show(context, { approval_id: id, state: approval.state }, () => `${id} is ${approval.state}; it takes no more verdicts.`)
    return no
  }
  const subject = options.as ?? onlyApprover(config.approvers.map((approver) => approver.subject))
  const approver = config.approvers.find((candidate) => candidate.subject === subject)
  if (approver === undefined) throw new WritError('approval_refused', `"${subject}" is not an approver of this Writ.`, { remedy: 'Enrol first: writ approvals enroll NAME --role ROLE.' })
  const stage = options.stage ?? approval.requirement.stages.find((one) => one.roles.some((role) => approver.roles.includes(role)))?.id
  if (stage === undefined) throw new WritError('approval_refused', `"${subject}" holds no role this approval waits for.`)

  context.note(shown.payload)
  const statement = makeStatement({
    approval,
    origin: shown.origin,
    stage,
    verdict,
    shown: digestOf(shown.payload),
    reason: options.reason ?? '',
    nowMs: Date.now(),
  })
  const jws = await sign(context, canonical(statement), approver.key, subject, verdict, options, join(config.keys, 'approvers'))
  const answer = await askBroker(folder.controlSocket, 'answer', jws)
  show(context, answer, () => `${id} is ${String(answer['state'])}. ${answer['state'] === 'satisfied' ? `${String(answer['execution_id'])} runs by itself now.` : ''}`.trim())
  return yes
}

function onlyApprover(subjects: readonly string[]): string {
  const [first] = subjects
  if (first === undefined) throw new WritError('approval_refused', 'No approver is enrolled.', { remedy: 'Enrol one: writ approvals enroll NAME --role approver.' })
  if (subjects.length > 1) throw new WritError('usage', `Several approvers are enrolled; say who you are with --as: ${subjects.join(', ')}.`)
  return first
}

async function sign(context: Context, payload: string, x: string, subject: string, verdict: VerdictWord, options: ApproveOptions, dir: string): Promise<string> {
  if (options.sshAgent === true) {
    const socket = context.env['SSH_AUTH_SOCK']
    if (socket === undefined) throw new WritError('key_unavailable', 'SSH_AUTH_SOCK is not set.', { remedy: 'Start an SSH agent and add your key with "ssh-add".' })
    const key = (await agentKeys(socket)).find((candidate) => candidate.x === x)
    if (key === undefined) throw new WritError('key_unavailable', `The SSH agent does not hold the key of "${subject}".`)
    if (options.yes !== true && !confirm(`Sign "${verdict}" as ${subject} with the SSH agent? Type yes: `)) throw new WritError('approval_refused', 'Nothing was signed.')
    const input = signingInput('writ-approval+jwt', payload, publicKey(x).kid)
    return `${input}.${(await agentSign(socket, key, Buffer.from(input, 'latin1'))).toString('base64url')}`
  }
  const passphrase = options.passphraseFd === undefined ? askSecret(`To sign "${verdict}" as ${subject}, type the passphrase of your key: `) : readFd(options.passphraseFd)
  const key = await openKeyFile(options.key ?? keyFilePath(dir, subject), passphrase)
  if (key.x !== x) throw new WritError('key_unavailable', `This key file is not the enrolled key of "${subject}".`)
  return signCompact('writ-approval+jwt', payload, key)
}

/** Makes a key under a passphrase, or takes one from an SSH agent, and adds the person to `writ.yaml`. */
export async function approvalsEnroll(
  context: Context,
  subject: string,
  options: { readonly role: readonly string[]; readonly sshAgent?: boolean | undefined; readonly passphraseFd?: number | undefined; readonly print?: boolean | undefined },
): Promise<number> {
  const config = configOf(context)
  const roles = options.role.length > 0 ? options.role : ['approver']
  if (config.approvers.some((approver) => approver.subject === subject)) throw new WritError('usage', `"${subject}" is an approver already.`, { remedy: 'Take another name, or remove the entry from writ.yaml first.' })
  const x = options.sshAgent === true ? await keyOfAgent(context) : (await makeKeyFile(keyFilePath(join(config.keys, 'approvers'), subject), newPassphrase(options.passphraseFd))).x
  const entry = { subject, roles: [...roles], key: x }
  if (options.print !== true) addApprover(config.path, entry)
  show(context, { ...entry, written: options.print !== true }, () =>
    [
      options.print === true ? 'Add this to "approvers" in writ.yaml:' : `${subject} is enrolled with ${roles.join(', ')}; added to ${config.path}:`,
      `  - { subject: ${subject}, roles: [${roles.join(', ')}], key: ${x} }`,
      'A running broker takes it over within a second.',
    ].join('\n'),
  )
  return yes
}

async function keyOfAgent(context: Context): Promise<string> {
  const socket = context.env['SSH_AUTH_SOCK']
  const keys = socket === undefined ? [] : await agentKeys(socket)
  const [first] = keys
  if (first === undefined) throw new WritError('key_unavailable', 'The SSH agent holds no Ed25519 key.', { remedy: 'Add one with "ssh-add", or enrol without --ssh-agent.' })
  if (keys.length > 1) context.note(`The agent holds ${String(keys.length)} Ed25519 keys; the first, "${first.comment}", is taken.`)
  return first.x
}

/** Comments and order of the file stay; what comes out has to load, or the old text is put back. */
function addApprover(path: string, entry: { readonly subject: string; readonly roles: readonly string[]; readonly key: string }): void {
  const before = readFileSync(path, 'utf8')
  const document = parseDocument(before)
  const list = document.get('approvers')
  if (isSeq(list)) {
    list.flow = false
    const node = document.createNode(entry)
    node.flow = true
    list.add(node)
  } else document.set('approvers', [entry])
  writeFileSync(path, document.toString({ lineWidth: 0 }), { mode: 0o600 })
  try {
    loadConfig(path)
  } catch (failure) {
    writeFileSync(path, before, { mode: 0o600 })
    throw failure
  }
}

function newPassphrase(fd: number | undefined): string {
  if (fd !== undefined) return readFd(fd)
  const first = askSecret('Choose a passphrase for the new key (12 characters or more): ')
  if (first !== askSecret('Once more: ')) throw new WritError('usage', 'The two passphrases differ; nothing was written.')
  return first
}

function readFd(fd: number): string {
  return readFileSync(fd, 'utf8').replace(/\r?\n$/, '')
}

/** Asks on the terminal itself, not on standard input, without showing what is typed. */
function askSecret(question: string): string {
  return onTerminal((fd) => {
    writeSync(fd, question)
    const stream = new ReadStream(fd)
    stream.setRawMode(true)
    try {
      return readLine(fd, true)
    } finally {
      stream.setRawMode(false)
      writeSync(fd, '\n')
    }
  })
}

function confirm(question: string): boolean {
  return onTerminal((fd) => {
    writeSync(fd, question)
    return readLine(fd, false).trim() === 'yes'
  })
}

function onTerminal<T>(use: (fd: number) => T): T {
  let fd: number
  try {
    fd = openSync('/dev/tty', 'r+')
  } catch {
    throw new WritError('usage', 'There is no terminal to ask on.', { remedy: 'Give the passphrase with --passphrase-fd N, or use --ssh-agent --yes.' })
  }
  try {
    return use(fd)
  } finally {
    closeSync(fd)
  }
}

function readLine(fd: number, raw: boolean): string {
  const bytes: number[] = []
  const one = Buffer.alloc(1)
  for (;;) {
    if (readSync(fd, one, 0, 1, null) === 0) break
    const byte = one[0] ?? 0
    if (byte === 10 || byte === 13) break
    if (raw && (byte === 3 || byte === 4)) throw new WritError('usage', 'Given up; nothing was signed.')
    if (raw && (byte === 127 || byte === 8)) bytes.pop()
    else bytes.push(byte)
  }
  return Buffer.from(bytes).toString('utf8')
}
