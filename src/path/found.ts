import type { Approval } from '../approval/approval.ts'
import type { Execution } from '../execution/execution.ts'
import { parseId } from '../id.ts'
import type { ReceiptRow, Views } from '../ledger/ledger.ts'
import type { Task } from '../request/task.ts'

/**
 * What an id names inside one tenant. Whatever is another tenant's, or no tenant's, is not there: policy is asked about it
 * as about an id nobody was ever given, and where policy says yes there is still nothing to use.
 */

export function findTask(views: Views, tenant: string, text: string): Task | null {
  const id = parseId('task', text)
  return inside(tenant, id === null ? null : views.task(id))
}

export function findExecution(views: Views, tenant: string, text: string): Execution | null {
  const id = parseId('exec', text)
  return inside(tenant, id === null ? null : views.execution(id))
}

export function findApproval(views: Views, tenant: string, text: string): Approval | null {
  const id = parseId('apr', text)
  return inside(tenant, id === null ? null : views.approval(id))
}

/** A receipt with the execution it is of; those of policies, tokens and keys are the operator's. */
export function findReceipt(
  views: Views,
  tenant: string,
  text: string,
): { readonly receipt: ReceiptRow; readonly execution: Execution } | null {
  const id = parseId('rcpt', text)
  const receipt = id === null ? null : views.receipt(id)
  const execution = receipt?.execution == null ? null : inside(tenant, views.execution(receipt.execution))
  return receipt === null || execution === null ? null : { receipt, execution }
}

function inside<T extends { readonly tenant: string }>(tenant: string, thing: T | null): T | null {
  return thing?.tenant === tenant ? thing : null
}
