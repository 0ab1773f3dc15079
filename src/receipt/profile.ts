import type { Json, JsonObject } from '../digest.ts'
import { receiptKinds } from './receipt.ts'
import type { ReceiptKind } from './receipt.ts'
import { audience, claimsShape, planSubject, predicateType } from './schema.ts'
import type { Claims, OutcomePredicate, PolicyPredicate } from './schema.ts'

/** What a receipt says of itself has to be of one piece, whoever signed it. */

export type ProfileCode = 'ISS' | 'AUD' | 'PROFILE' | 'TIME' | 'UNKNOWN_KIND'

export class ProfileError extends Error {
  readonly code: ProfileCode

  constructor(code: ProfileCode, message: string) {
    super(message)
    this.name = 'ProfileError'
    this.code = code
  }
}

/** Kinds that are reserved and not yet made: nothing is known of their members, so nothing is said of them. */
const made: ReadonlySet<ReceiptKind> = new Set([
  'genesis',
  'decision',
  'approval',
  'outcome',
  'denials',
  'policy',
  'key',
])

/** Checks everything a receipt says about itself without any other evidence. Throws `ProfileError`. */
export function readClaims(payload: JsonObject): Claims {
  if (payload['aud'] !== audience) throw new ProfileError('AUD', 'the audience is not that of receipts')
  if (payload['predicateType'] !== predicateType)
    throw new ProfileError('UNKNOWN_KIND', 'the type of the predicate is not known here')
  const kind = kindOf(payload['predicate'])
  if (kind === null || !made.has(kind))
    throw new ProfileError('UNKNOWN_KIND', 'the kind of the receipt is not known here')
  const parsed = claimsShape.safeParse(payload)
  if (!parsed.success) {
    const where = parsed.error.issues[0]?.path.map(String).join('.') ?? ''
    throw new ProfileError(
      'PROFILE',
      where === '' ? 'the members are not those of a receipt' : `"${where}" is not as the profile demands`,
    )
  }
  const { data } = parsed
  if (!/^(urn:writ:[A-Za-z0-9_-]{43}|https:\/\/[^\s"\\]{1,200})$/.test(data.iss))
    throw new ProfileError('ISS', 'the issuer is no broker')
  if (data.predicate.log.origin !== data.iss) throw new ProfileError('ISS', 'the log is that of another issuer')
  if (data.iat < data.toe) throw new ProfileError('TIME', 'signed before it happened')
  if ((data.predicate._sd === undefined) !== (data._sd_alg === undefined))
    throw new ProfileError('PROFILE', 'withheld members and their hash algorithm do not come together')
  if (new Set(data.predicate._sd).size !== (data.predicate._sd ?? []).length)
    throw new ProfileError('PROFILE', 'one withheld member stands for two')
  checkKind(data)
  return data
}

function kindOf(predicate: Json | undefined): ReceiptKind | null {
  if (predicate === null || typeof predicate !== 'object' || Array.isArray(predicate)) return null
  const kind = (predicate as JsonObject)['kind']
  return receiptKinds.find((known) => known === kind) ?? null
}

function checkKind(data: Claims): void {
  const { predicate } = data
  switch (predicate.kind) {
    case 'decision':
    case 'approval':
      checkCaller(data)
      if (data.subject.length !== 1 || data.subject[0]?.name !== planSubject)
        throw new ProfileError('PROFILE', 'a subject that is not one plan')
      return
    case 'outcome':
      checkCaller(data)
      checkEnd(predicate, data.subject)
      return
    case 'genesis':
      if (predicate.log.size !== 0) throw new ProfileError('PROFILE', 'a genesis that is not the first entry')
      return
    case 'denials':
      if (predicate.until < predicate.from) throw new ProfileError('TIME', 'a period that ends before it begins')
      return
    case 'policy':
      checkPolicy(predicate)
      return
    case 'key':
      return
  }
}

function checkCaller({ sub, act, txn }: Claims): void {
  if (sub === undefined || act === undefined || txn === undefined)
    throw new ProfileError('PROFILE', 'on whose behalf, by which agent or for which task is not said')
}

type Status = OutcomePredicate['status']

/** What is said of an end says the same of what was seen: nothing that ran was denied, and what nobody saw end is unknown. */
const endings: Readonly<Record<OutcomePredicate['effect'], readonly Status[]>> = {
  none: ['denied', 'rejected', 'expired', 'superseded', 'failed', 'cancelled'],
  observed: ['succeeded', 'failed', 'timed_out', 'cancelled'],
  dispatched: ['unknown'],
}

function checkEnd(predicate: OutcomePredicate, subject: Claims['subject']): void {
  const { status, effect, isolation, exits, counts } = predicate
  const fail = (message: string): never => {
    throw new ProfileError('PROFILE', message)
  }
  if (!endings[effect].includes(status)) fail('a status and an effect that contradict each other')
  const ofPlan = subject.length === 1 && subject[0]?.name === planSubject
  switch (effect) {
    case 'none':
      if (isolation !== null || !Array.isArray(exits) || exits.length > 0 || !ofPlan)
        fail('an isolation, exits or outputs of what never ran')
      break
    case 'observed':
      if (isolation === null) fail('an end that was seen, in no isolation')
      break
    case 'dispatched':
      break
  }
  if (status === 'succeeded' && Array.isArray(exits) && (exits.length === 0 || exits.includes(null)))
    fail('a success without the exit of each step')
  if (!ofPlan && outputsOf(subject) > counts.files) fail('more outputs than files')
}

/** How many outputs are named; more than the list may hold are named by their number. */
function outputsOf(subject: Claims['subject']): number {
  const many = subject.length === 1 ? /^(\d{1,9}) subjects$/.exec(subject[0]?.name ?? '')?.[1] : undefined
  if (many !== undefined) return Number(many)
  if (subject.some(({ name }, at) => name !== `output-${at + 1}`))
    throw new ProfileError('PROFILE', 'a subject that is neither the plan nor an output')
  return subject.length
}

function checkPolicy({ what, generation, modules, count }: PolicyPredicate): void {
  const [generations, counts] = [what === 'generation', what === 'approvers']
  if (
    (generation !== undefined) !== generations ||
    (modules !== undefined) !== generations ||
    (count !== undefined) !== counts
  )
    throw new ProfileError('PROFILE', 'members of another change of policy')
}
