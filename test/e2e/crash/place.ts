import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Approval } from '../../../src/approval/approval.ts'
import { makeStatement } from '../../../src/approval/statement.ts'
import { askBroker } from '../../../src/control/control.ts'
import { canonical, digestOf } from '../../../src/digest.ts'
import { type Folder, folderOf } from '../../../src/folder.ts'
import { generateKey, signCompact } from '../../../src/jws.ts'
import type { BrokerPlace } from './line.ts'

const writBin = join(import.meta.dirname, '..', '..', '..', 'bin', 'writ')

/** An initialised folder whose targets call a loopback service with a credential, and an approver whose key is at hand. */
export interface Place extends BrokerPlace {
  readonly root: string
  readonly folder: Folder
  writ(args: readonly string[], input?: string): { readonly code: number; readonly out: string; readonly err: string }
  /** Answers an approval through the control socket, as `writ approvals` does, with a signed statement. */
  answer(approval: string, verdict: 'approve' | 'reject'): Promise<string>
}

export function makePlace(options: { readonly port: number; readonly token: string; readonly name?: string }): Place {
  const root = mkdtempSync(join(tmpdir(), options.name ?? 'writ-crash-'))
  const env = { PATH: process.env['PATH'] ?? '', HOME: root }
  const writ: Place['writ'] = (args, input = '') => {
    const done = spawnSync(process.execPath, [writBin, ...args], {
      cwd: root,
      env,
      input,
      encoding: 'utf8',
      maxBuffer: 64 << 20,
    })
    return { code: done.status ?? 128, out: done.stdout, err: done.stderr }
  }
  must(writ(['init']))
  const key = generateKey()
  const configFile = join(root, 'writ.yaml')
  const config = readFileSync(configFile, 'utf8')
  writeFileSync(
    configFile,
    config.replace('approvers: []', `approvers:\n  - { subject: ada, roles: [approver], key: ${key.x} }`),
  )
  const target = (name: string, env: string): string => `
  ${name}:
    about: A target with a service that remembers
    labels: { env: ${env} }
    executor: isolate
    intents: [run_script]
    services:
      effects: { url: "http://127.0.0.1:${String(options.port)}", about: Remembers lines, credential: effects-token, addresses: ["127.0.0.1/32"] }
    environment:
      EFFECTS: { service: effects }
      TOKEN: { placeholder: effects-token }
`
  const catalogFile = join(root, 'catalog.yaml')
  const [targets = ''] = readFileSync(catalogFile, 'utf8').split('# A service with a token.')
  writeFileSync(
    catalogFile,
    `${targets}${target('effects', 'staging')}${target('guarded', 'production')}
credentials:
  effects-token:
    source: { file: effects-token }
    inject: { bearer: true }
`,
  )
  must(writ(['credentials', 'set', 'effects-token'], options.token))
  const folder = folderOf(join(root, '.writ'))
  return {
    root,
    folder,
    configFile,
    socket: folder.mcpSocket,
    logFile: folder.log,
    env,
    writ,
    async answer(id, verdict) {
      const shown = (await askBroker(folder.controlSocket, 'approval', id)) as unknown as {
        readonly approval: Approval
        readonly payload: string
        readonly origin: string
      }
      const { approval, payload, origin } = shown
      const statement = makeStatement({
        approval,
        origin,
        stage: approval.requirement.stages[0]?.id ?? '',
        verdict,
        shown: digestOf(payload),
        reason: 'seen',
        nowMs: Date.now(),
      })
      const answer = await askBroker(
        folder.controlSocket,
        'answer',
        signCompact('writ-approval+jwt', canonical(statement), key),
      )
      return String(answer['state'])
    },
  }
}

function must(ran: { readonly code: number; readonly err: string }): void {
  if (ran.code !== 0) throw new Error(ran.err)
}
