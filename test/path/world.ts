import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Waiting } from '../../src/broker.ts'
import { makeStatement } from '../../src/approval/statement.ts'
import { canonical, digestOf } from '../../src/digest.ts'
import type { JsonObject } from '../../src/digest.ts'
import type { Results } from '../../src/execution/result.ts'
import { generateKey, signCompact } from '../../src/jws.ts'
import type { SigningKey } from '../../src/jws.ts'
import type { Parts } from '../../src/path/parts.ts'
import type { Decision, PolicyInput } from '../../src/policy/policy.ts'
import { showApproval } from '../../src/path/answer.ts'
import type { Arguments, ToolName } from '../../src/request/call.ts'
import type { Caller } from '../../src/request/caller.ts'
import { decided } from '../e2e/clients/driver.ts'
import { initialised, openTestBroker } from '../transfer/broker.ts'
import type { Broker } from '../transfer/broker.ts'

/** A real broker with two more targets (`chat` takes a word in chat, `signed` a key) and an approver, `ada`. */
export interface World {
  readonly broker: Broker
  readonly parts: Parts
  readonly ada: SigningKey
  /** As the edge does: policy first, then the tool. Refused admissions are answered in the same shape. */
  ask<T extends ToolName>(caller: Caller, tool: T, args: Arguments[T]): Promise<Results[T]>
  /** A task with this script, by its caller. */
  task(caller: Caller, target: string, code?: string): Promise<string>
  /** Ada's signed yes to an approval, as her terminal makes it. */
  yes(approval: string, key?: SigningKey): Promise<string>
}

export const alice: Caller = {
  tenant: 'default',
  subject: { type: 'user', id: 'alice' },
  roles: ['developer'],
  agent: { id: 'agent-a', asserted: { client: '', version: '' } },
  auth: { method: 'token', atMs: Date.now(), shown: null },
}

export const mallory: Caller = { ...alice, subject: { type: 'user', id: 'mallory' } }

/** A guard that asks one approver for what runs on this label, taking this evidence. */
function guard(name: string, evidence: string): string {
  return `
# METADATA
# title: Somebody says yes to ${name}
# custom:
#   id: EXT-${name}
#   code: approval_required
#   remedy: Wait for them.
require_approval contains {
	"rule": rego.metadata.rule(),
	"stages": [{"id": "approver", "roles": ["approver"], "min": 1}],
	"exclude": ["agent"],
	"evidence": ["${evidence}"],
	"request_ttl_s": 600,
	"execute_within_s": 600,
	"message": "asked by the test",
} if {
	input.phase == "execution"
	input.resource.properties.labels.env == "${name}"
}
`
}

function target(name: string): string {
  return `  ${name}:
    about: A target of the test
    labels: { env: ${name} }
    executor: isolate
    intents: [run_script]
`
}

export async function openWorld(
  options: {
    readonly rules?: string
    readonly targets?: string
    readonly credentials?: string
    readonly yaml?: string
    /** Rules of the one pack there is, in place of those Writ brings. */
    readonly only?: string
  } = {},
): Promise<World> {
  const ada = generateKey()
  const folder = initialised(
    `\napprovers:\n  - { subject: ada, roles: [approver], key: ${ada.x} }\n${options.yaml ?? ''}`,
  )
  mkdirSync(join(folder, 'policies', 'extra'))
  writeFileSync(
    join(folder, 'policies', 'extra', 'extra.rego'),
    `package writ.pack.extra\n${guard('chat', 'bearer')}${guard('signed', 'key')}${options.rules ?? ''}${options.only ?? ''}`,
  )
  edit(join(folder, 'writ.yaml'), (text) =>
    text
      .replace(/^approvers:.*\n(?=[a-z#\n])/m, '')
      .replace(
        options.only === undefined ? 'policies:\n' : /^policies:\n(?: +- .*\n)+/m,
        `policies:\n  - { pack: extra, layer: org, kind: ${options.only === undefined ? 'guard' : 'grant'}, path: policies/extra }\n`,
      ),
  )
  edit(join(folder, 'catalog.yaml'), (text) =>
    text
      .replace('targets:\n', `targets:\n${target('chat')}${target('signed')}${options.targets ?? ''}`)
      .concat(options.credentials ?? ''),
  )
  const broker = await openTestBroker({ folder })
  const { parts } = broker.served
  return {
    broker,
    parts,
    ada,
    async ask(caller, tool, args) {
      return await decided(
        async () => {
          const message = { name: tool, arguments: args as unknown as JsonObject }
          const admission = await broker.served.broker.admit(caller, message)
          if (!admission.allowed) return { error: admission.reason } as Results[typeof tool]
          return await broker.served.broker.call(caller, tool, args, waiting())
        },
        (answer) => answer as unknown as JsonObject,
      )
    },
    async task(caller, target_ref, code = "console.log('ran')") {
      const submit = {
        project_name: 'path',
        goal: 'Print a line',
        target_ref,
        execution_intent: 'run_script',
        inputs: { script: 'a.js' },
        files: [{ path: 'a.js', content: code }],
      }
      const { task_id, error } = await decided(
        async () => await broker.served.broker.call(caller, 'submit_task', submit, waiting()),
        (answer) => answer as unknown as JsonObject,
      )
      if (task_id === undefined) throw new Error(JSON.stringify(error))
      return task_id
    },
    async yes(id, key = ada) {
      const { approval, payload } = await showApproval(parts, id, null)
      const statement = makeStatement({
        approval,
        origin: parts.origin,
        stage: 'approver',
        verdict: 'approve',
        shown: digestOf(payload),
        reason: 'seen',
        nowMs: Date.now(),
      })
      return signCompact('writ-approval+jwt', canonical(statement), key)
    },
  }
}

function waiting(): Waiting {
  return { signal: AbortSignal.timeout(60_000), progress: () => undefined }
}

export function edit(path: string, change: (text: string) => string): void {
  writeFileSync(path, change(readFileSync(path, 'utf8')))
}

/** The same policy, with `then` between each of its answers and who asked. */
export function answering(
  policy: Parts['policy'],
  then: (decision: Decision, input: PolicyInput) => Decision,
): Parts['policy'] {
  return {
    get generation() {
      return policy.generation
    },
    decide: async (input) => then(await policy.decide(input), input),
  }
}
