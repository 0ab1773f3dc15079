import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { makeStatement } from '../../../src/approval/statement.ts'
import { askBroker } from '../../../src/control/control.ts'
import { canonical, digestOf } from '../../../src/digest.ts'
import { type Folder, folderOf } from '../../../src/folder.ts'
import { generateKey, signCompact } from '../../../src/jws.ts'
import type { BrokerPlace } from './line.ts'

const writBin = join(import.meta.dirname, '..', '..', '..', 'bin', 'writ')

/** An initialised folder with an approver whose key is at hand. */
export interface Place extends BrokerPlace {
  readonly root: string
  readonly folder: Folder
  readonly catalogFile: string
  writ(args: readonly string[], input?: string): { readonly code: number; readonly out: string; readonly err: string }
  /** Answers an approval through the control socket, as `writ approvals` does, with a signed statement. */
  answer(approval: string, verdict: 'approve' | 'reject', by?: 'ada' | 'bob'): Promise<string>
}

export interface PlaceOptions {
  readonly name: string
  /** YAML under `targets:`, two spaces deep. */
  readonly targets?: string
  /** YAML under `credentials:`, two spaces deep. */
  readonly credentials?: string
  /** Values of the file credentials. */
  readonly secrets?: Readonly<Record<string, string>>
  readonly env?: Readonly<Record<string, string>>
  /** Lines of writ.yaml beside those `writ init` writes. */
  readonly config?: string
  /** `data:` of writ.yaml. */
  readonly data?: string
}

export function makePlace(options: PlaceOptions): Place {
  const root = mkdtempSync(join(tmpdir(), options.name))
  const env = { PATH: process.env['PATH'] ?? '', HOME: root, ...options.env }
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
  const keys = { ada: generateKey(), bob: generateKey() }
  const configFile = join(root, 'writ.yaml')
  const config = readFileSync(configFile, 'utf8')
    .replace(
      'approvers: []',
      `approvers:\n${Object.entries(keys)
        .map(([subject, { x }]) => `  - { subject: ${subject}, roles: [approver], key: ${x} }`)
        .join('\n')}`,
    )
    .replace('data: .writ', `data: ${options.data ?? '.writ'}`)
  writeFileSync(configFile, `${config}\n${options.config ?? ''}`)
  const catalogFile = join(root, 'catalog.yaml')
  const [targets = ''] = readFileSync(catalogFile, 'utf8').split('# A service with a token.')
  const credentials = options.credentials === undefined ? '' : `\ncredentials:\n${options.credentials}\n`
  writeFileSync(catalogFile, `${targets}${options.targets ?? ''}\n${credentials}`)
  for (const [name, value] of Object.entries(options.secrets ?? {})) must(writ(['credentials', 'set', name], value))
  const folder = folderOf(resolve(root, options.data ?? '.writ'))
  return {
    root,
    folder,
    configFile,
    catalogFile,
    socket: folder.mcpSocket,
    logFile: folder.log,
    env,
    writ,
    async answer(id, verdict, by = 'ada') {
      const { approval, payload, origin } = await askBroker(folder.controlSocket, 'approval', { approval_id: id })
      const statement = makeStatement({
        approval,
        origin,
        stage: approval.requirement.stages[0]?.id ?? '',
        verdict,
        shown: digestOf(payload),
        reason: 'seen',
        nowMs: Date.now(),
      })
      const jws = signCompact('writ-approval+jwt', canonical(statement), keys[by])
      return (await askBroker(folder.controlSocket, 'answer', { jws })).state
    },
  }
}

function must(ran: { readonly code: number; readonly err: string }): void {
  if (ran.code !== 0) throw new Error(ran.err)
}
