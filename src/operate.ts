import { standing } from './approval/requirement.ts'
import type { Broker } from './broker.ts'
import type { ControlMethods } from './control/protocol.ts'
import type { JsonObject } from './digest.ts'
import { WritError } from './error.ts'
import { parseId } from './id.ts'
import { answerWithKey, readPlanFile, showApproval } from './path/answer.ts'
import type { Parts } from './path/parts.ts'
import type { Runner } from './path/run.ts'
import type { Caller } from './request/caller.ts'

/** What the command line asks for on behalf of people. Each is decided by policy like a message of any client. */
export function operatorMethods(from: {
  readonly parts: Parts
  readonly runner: Runner
  readonly broker: Broker
  readonly caller: (tenant?: string) => Caller
}): Pick<ControlMethods, 'approval' | 'approval_file' | 'answer' | 'cancel'> {
  const { parts, runner, broker } = from
  async function admitLocal(name: string, args: JsonObject, tenant?: string): Promise<void> {
    const admission = await broker.admit(from.caller(tenant), { name, arguments: args })
    if (!admission.allowed) throw new WritError('denied', admission.reason.message, { remedy: admission.reason.remedy })
  }

  // Who approves with a key of their own is enrolled for the whole Writ, so the operator's terminal shows each tenant's.
  async function admitApproval(id: string): Promise<void> {
    const known = parseId('apr', id)
    const of = known === null ? null : parts.ledger.views.approval(known)
    await admitLocal('get_status', { approval_id: id }, of?.tenant)
  }

  return {
    async approval({ approval_id }) {
      await admitApproval(approval_id)
      const shown = await showApproval(parts, approval_id, null)
      return {
        approval: shown.approval,
        payload: shown.payload,
        origin: parts.origin,
        stages: standing(shown.approval).stages,
      }
    },
    async approval_file({ approval_id, path, from: start }) {
      await admitApproval(approval_id)
      const { size, sha256, bytes } = await readPlanFile(parts, approval_id, path, start)
      return { size, sha256, bytes: bytes.toString('base64') }
    },
    async answer({ jws }) {
      const approval = await answerWithKey(parts, runner, jws)
      return {
        approval_id: approval.id,
        state: approval.state,
        execution_id: approval.execution,
        stages: standing(approval).stages,
      }
    },
    async cancel({ execution_id, reason }) {
      const args = { execution_id, ...(reason === '' ? {} : { reason }) }
      await admitLocal('cancel_execution', args)
      const result = await broker.call(from.caller(), 'cancel_execution', args, {
        signal: AbortSignal.timeout(10_000),
        progress: () => undefined,
      })
      if (result.error !== undefined)
        throw new WritError('denied', result.error.message, { remedy: result.error.remedy })
      const { state, final } = result
      if (state === undefined || final === undefined)
        throw new WritError('internal', 'a cancelled execution without its state')
      return { ...result, state, final }
    },
  }
}
