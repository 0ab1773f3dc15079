import { chmodSync, readFileSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isNode, isSeq, parseDocument } from 'yaml'
import { agentKeys } from '../approval/agent.ts'
import type { Approver } from '../approval/approval.ts'
import { checkPassphrase, keyFilePath, makeKeyFile } from '../approval/keyfile.ts'
import { loadConfig } from '../config.ts'
import { systemCode, WritError } from '../error.ts'
import { generateKey } from '../jws.ts'
import { type Context, configOf, yes } from './context.ts'
import { show } from './print.ts'
import { askSecret, readFd } from './terminal.ts'

export interface EnrollOptions {
  readonly role: readonly string[]
  readonly sshAgent?: boolean | undefined
  readonly passphraseFd?: number | undefined
  readonly print?: boolean | undefined
}

/** Makes a key under a passphrase, or takes one from an SSH agent, and adds the person to `writ.yaml`. */
export async function approvalsEnroll(context: Context, subject: string, options: EnrollOptions): Promise<number> {
  const config = configOf(context)
  const roles = options.role.length > 0 ? options.role : ['approver']
  if (config.approvers.some((approver) => approver.subject === subject))
    throw new WritError('usage', `"${subject}" is an approver already.`, {
      remedy: 'Take another name, or remove the entry from writ.yaml first.',
    })
  // With a key of nobody first: a name or role that writ.yaml would not take is told before anything is made.
  withApprover(config.path, { subject, roles, key: generateKey().x })
  const file = options.sshAgent === true ? null : keyFilePath(join(config.keys, 'approvers'), subject)
  const key =
    file === null ? await keyOfAgent(context) : (await makeKeyFile(file, await newPassphrase(options.passphraseFd))).x
  const entry = { subject, roles: [...roles], key }
  if (options.print !== true) {
    try {
      await addApprover(config.path, entry)
    } catch (failure) {
      // A key nobody is known by would only be in the way of the next try.
      if (file !== null) rmSync(file)
      throw failure
    }
  }
  show(context, { ...entry, written: options.print !== true }, () =>
    [
      options.print === true
        ? 'Add this to "approvers" in writ.yaml:'
        : `${subject} is enrolled with ${roles.join(', ')}; added to ${config.path}:`,
      `  - ${itemOf(entry)}`,
      'A running broker takes it over within a second.',
      ...(options.sshAgent === true
        ? ['Whoever can reach the agent can sign with it: add the key with "ssh-add -c", and it asks you each time.']
        : []),
    ].join('\n'),
  )
  return yes
}

async function keyOfAgent(context: Context): Promise<string> {
  const socket = context.env['SSH_AUTH_SOCK']
  const keys = socket === undefined ? [] : await agentKeys(socket)
  const [first] = keys
  if (first === undefined)
    throw new WritError('key_unavailable', 'The SSH agent holds no Ed25519 key.', {
      remedy: 'Add one with "ssh-add", or enrol without --ssh-agent.',
    })
  if (keys.length > 1)
    context.note(`The agent holds ${String(keys.length)} Ed25519 keys; the first, "${first.comment}", is taken.`)
  return first.x
}

/** The text of `writ.yaml` with one approver more, every other byte as it was. Throws where that would not load. */
function withApprover(path: string, entry: Approver): string {
  const text = inserted(readFileSync(path, 'utf8'), entry)
  const trial = tryFile(path)
  try {
    writeFileSync(trial, text, { mode: 0o600 })
    const last = loadConfig(trial).approvers.at(-1)
    if (last?.key !== entry.key || last.subject !== entry.subject)
      throw new WritError('invalid_config', 'the list "approvers" is written in a way that cannot be added to')
  } catch (failure) {
    if (!(failure instanceof WritError)) throw failure
    const message = failure.message.replaceAll(basename(trial), basename(path))
    throw new WritError('usage', `This approver cannot be enrolled: ${message}`, {
      remedy:
        'A name is printable, without spaces; a role is a-z, 0-9, "-" and "_". With --print the entry is for you to add.',
    })
  } finally {
    rmSync(trial, { force: true })
  }
  return text
}

/** The entry as one writes it; JSON is YAML too. */
function itemOf({ subject, roles, key }: Approver): string {
  const names = roles.map((role) => JSON.stringify(role)).join(', ')
  return `{ subject: ${JSON.stringify(subject)}, roles: [${names}], key: ${key} }`
}

/** Where the list ends is found by the parser; an item of a block goes below the line the last one ends on. */
function inserted(text: string, entry: Approver): string {
  const item = itemOf(entry)
  const list = parseDocument(text).get('approvers', true)
  if (!isSeq(list) || list.range === undefined || list.range === null)
    return `${text.endsWith('\n') || text === '' ? text : `${text}\n`}approvers:\n  - ${item}\n`
  const [start, end] = list.range
  if (list.items.length === 0) return `${text.slice(0, start).trimEnd()}\n  - ${item}${text.slice(end)}`
  const last = list.items.at(-1)
  const after = (isNode(last) ? last.range?.[1] : undefined) ?? end
  if (list.flow === true) return `${text.slice(0, after)}, ${item}${text.slice(after)}`
  const lineEnd = text[after - 1] === '\n' ? after - 1 : text.indexOf('\n', after)
  const at = lineEnd < 0 ? text.length : lineEnd
  const indent = text.slice(text.lastIndexOf('\n', start) + 1, start)
  return `${text.slice(0, at)}\n${indent}- ${item}${text.slice(at)}`
}

/** Beside the file itself: relative paths mean the same there, and a rename is one step. */
function tryFile(path: string): string {
  return join(dirname(path), `.${basename(path)}.${String(process.pid)}`)
}

/**
 * Replaces the file whole, so that a broker that watches it never reads half of it. What takes its place is made by one
 * command at a time: else one would lose what another adds.
 */
async function addApprover(path: string, entry: Approver): Promise<void> {
  const real = realpathSync(path)
  const next = join(dirname(real), `.${basename(real)}.next`)
  await claim(next)
  try {
    writeFileSync(next, withApprover(path, entry))
    // Whatever the umask is: who could read the file still can.
    chmodSync(next, statSync(real).mode & 0o777)
    renameSync(next, real)
  } catch (failure) {
    rmSync(next, { force: true })
    throw failure
  }
}

const claims = 500
const claimMs = 20

async function claim(next: string): Promise<void> {
  for (let left = claims; ; left--) {
    try {
      writeFileSync(next, '', { mode: 0o600, flag: 'wx' })
      return
    } catch (failure) {
      if (systemCode(failure) !== 'EEXIST') throw failure
    }
    if (left === 0)
      throw new WritError('usage', `Another command is changing the configuration, or died while it did: ${next}.`, {
        remedy: 'Where no other command runs, remove that file, and enrol again.',
      })
    await new Promise((resolve) => setTimeout(resolve, claimMs))
  }
}

async function newPassphrase(fd: number | undefined): Promise<string> {
  if (fd !== undefined) return readFd(fd)
  const first = await askSecret('Choose a passphrase for the new key (12 characters or more): ')
  checkPassphrase(first)
  if (first !== (await askSecret('Once more: ')))
    throw new WritError('usage', 'The two passphrases differ; nothing was written.', { remedy: 'Run it again.' })
  return first
}
