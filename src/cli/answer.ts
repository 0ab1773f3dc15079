import { join, resolve } from 'node:path'
import { agentKeys, agentSign } from '../approval/agent.ts'
import type { VerdictWord } from '../approval/approval.ts'
import { keyFilePath, openKeyFile } from '../approval/keyfile.ts'
import { eligible, stageFor } from '../approval/requirement.ts'
import { makeStatement } from '../approval/statement.ts'
import { canonical, digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import { publicKey, signCompact, signingInput } from '../jws.ts'
import { fetchApproval } from './approvals.ts'
import { askStarted } from './broker.ts'
import { type Context, folderFor, no, yes } from './context.ts'
import { show } from './print.ts'
import { askSecret, confirm, readFd } from './terminal.ts'

export interface ApproveOptions {
  readonly as?: string | undefined
  readonly stage?: string | undefined
  readonly reason?: string | undefined
  readonly key?: string | undefined
  readonly sshAgent?: boolean | undefined
  readonly passphraseFd?: number | undefined
  readonly yes?: boolean | undefined
}

/** What the payload is wrapped for. */
const minColumns = 80

/** Shows the payload in full, then signs over the digest of the very text that was shown. */
export async function approvalsAnswer(
  context: Context,
  id: string,
  verdict: VerdictWord,
  options: ApproveOptions,
): Promise<number> {
  const { config } = folderFor(context)
  const shown = await fetchApproval(context, id)
  const { approval } = shown
  if (approval.state !== 'open') {
    show(
      context,
      { approval_id: id, state: approval.state },
      () => `${id} is ${approval.state}; it takes no more verdicts.`,
    )
    return no
  }
  const subject = options.as ?? onlyApprover(config.approvers.map((approver) => approver.subject))
  const approver = config.approvers.find((candidate) => candidate.subject === subject)
  if (approver === undefined)
    throw new WritError('approval_refused', `"${subject}" is not an approver of this Writ.`, {
      remedy: 'Enrol first: writ approvals enroll NAME --role ROLE.',
    })
  const stage =
    options.stage ??
    stageFor(approval, approver, config.approvers) ??
    approval.requirement.stages.find((one) => eligible(approval, one, [approver]).length === 1)?.id
  if (stage === undefined)
    throw new WritError(
      'approval_refused',
      `"${subject}" holds no role this approval waits for, or may not answer it.`,
      {
        remedy: 'Ask another person with the role; whoever asked for a run may not approve it.',
      },
    )

  // Nothing of a caller stands at the margin, as long as no line is wrapped.
  if (context.columns !== null && context.columns < minColumns)
    throw new WritError('usage', `This terminal has ${String(context.columns)} columns.`, {
      remedy: `Make it ${String(minColumns)} wide or wider, so that what you sign for is shown as it is.`,
    })
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
  const jws = await sign(
    context,
    canonical(statement),
    approver.key,
    subject,
    verdict,
    options,
    join(config.keys, 'approvers'),
  )
  const answer = await askStarted(context, 'answer', { jws })
  show(context, answer, () =>
    `${id} is ${answer.state}. ${answer.state === 'satisfied' ? `${answer.execution_id} runs by itself now.` : ''}`.trim(),
  )
  return yes
}

function onlyApprover(subjects: readonly string[]): string {
  const [first] = subjects
  if (first === undefined)
    throw new WritError('approval_refused', 'No approver is enrolled.', {
      remedy: 'Enrol one: writ approvals enroll NAME --role approver.',
    })
  if (subjects.length > 1)
    throw new WritError('usage', `Several approvers are enrolled; say who you are with --as: ${subjects.join(', ')}.`)
  return first
}

async function sign(
  context: Context,
  payload: string,
  x: string,
  subject: string,
  verdict: VerdictWord,
  options: ApproveOptions,
  dir: string,
): Promise<string> {
  if (options.sshAgent === true) {
    const socket = context.env['SSH_AUTH_SOCK']
    if (socket === undefined)
      throw new WritError('key_unavailable', 'SSH_AUTH_SOCK is not set.', {
        remedy: 'Start an SSH agent and add your key with "ssh-add".',
      })
    const key = (await agentKeys(socket)).find((candidate) => candidate.x === x)
    if (key === undefined)
      throw new WritError('key_unavailable', `The SSH agent does not hold the key of "${subject}".`)
    if (options.yes !== true && !(await confirm(`Sign "${verdict}" as ${subject} with the SSH agent? Type yes: `)))
      throw new WritError('approval_refused', 'Nothing was signed.')
    const input = signingInput('writ-approval+jwt', payload, publicKey(x).kid)
    return `${input}.${(await agentSign(socket, key, Buffer.from(input, 'latin1'))).toString('base64url')}`
  }
  const passphrase =
    options.passphraseFd === undefined
      ? await askSecret(`To sign "${verdict}" as ${subject}, type the passphrase of your key: `)
      : readFd(options.passphraseFd)
  const file = options.key === undefined ? keyFilePath(dir, subject) : resolve(context.cwd, options.key)
  const key = await openKeyFile(file, passphrase)
  if (key.x !== x) throw new WritError('key_unavailable', `This key file is not the enrolled key of "${subject}".`)
  return signCompact('writ-approval+jwt', payload, key)
}
