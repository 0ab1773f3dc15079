import type { Evidence, InputApproval, PackOutput, PolicyInput, Requirement, Stage } from './policy.ts'

type Demand = PackOutput['require_approval'][number]

/** Order by UTF-16 code units, as RFC 8785 sorts keys; never by locale. */
export function byText(a: string, b: string): number {
  if (a === b) return 0
  return a < b ? -1 : 1
}

function intersection<T extends string>(lists: readonly (readonly T[])[]): readonly T[] {
  let common = [...new Set(lists[0])]
  for (const list of lists.slice(1)) {
    const next = new Set(list)
    common = common.filter((element) => next.has(element))
  }
  return common.toSorted(byText)
}

/**
 * One requirement out of all demands, each at its strictest: stages united by id, `min` the maximum, roles of a stage and
 * evidence intersected, exclusions united, times the minimum. Null where an intersection is empty: nobody could answer.
 * Sorted throughout, so that its digest does not depend on the order of packs. The agent is always excluded (DESIGN §7).
 */
export function mergeRequirement(demands: readonly [Demand, ...Demand[]]): Requirement | null {
  const byId = new Map<string, Stage[]>()
  for (const stage of demands.flatMap((demand) => demand.stages)) {
    const same = byId.get(stage.id)
    if (same === undefined) byId.set(stage.id, [stage])
    else same.push(stage)
  }
  const stages = [...byId]
    .map(([id, same]) => ({
      id,
      roles: intersection(same.map((stage) => stage.roles)),
      min: Math.max(...same.map((stage) => stage.min)),
    }))
    .toSorted((a, b) => byText(a.id, b.id))
  const evidence: readonly Evidence[] = intersection(demands.map((demand) => demand.evidence))
  if (evidence.length === 0 || stages.some((stage) => stage.roles.length === 0)) return null
  const excludesSubject = demands.some((demand) => demand.exclude.includes('subject'))
  return {
    stages,
    exclude: excludesSubject ? ['agent', 'subject'] : ['agent'],
    evidence,
    request_ttl_s: Math.min(...demands.map((demand) => demand.request_ttl_s)),
    execute_within_s: Math.min(...demands.map((demand) => demand.execute_within_s)),
  }
}

function counts(approval: InputApproval, stage: Stage, requirement: Requirement, input: PolicyInput): boolean {
  const { subject } = input
  return (
    approval.verdict === 'approve' &&
    approval.stage === stage.id &&
    approval.until_s >= input.context.time.unix_s &&
    requirement.evidence.includes(approval.evidence) &&
    approval.roles.some((role) => stage.roles.includes(role)) &&
    !(requirement.exclude.includes('agent') && approval.by === subject.properties.agent.id) &&
    !(requirement.exclude.includes('subject') && approval.by === subject.id)
  )
}

/**
 * Whether enough distinct people said yes, each counted in one stage only. Somebody who approved two stages is placed
 * where needed (an augmenting path per seat): any fixed choice would let a stricter requirement be met where a weaker one
 * is not.
 */
export function satisfied(requirement: Requirement, input: PolicyInput): boolean {
  const seats = requirement.stages.flatMap((stage) => {
    const people = new Set(
      input.context.approvals
        .filter((approval) => counts(approval, stage, requirement, input))
        .map((approval) => approval.by),
    )
    return Array.from({ length: stage.min }, () => people)
  })
  const seatOf = new Map<string, number>()

  const place = (seat: number, tried: Set<string>): boolean => {
    for (const person of seats[seat] ?? []) {
      if (tried.has(person)) continue
      tried.add(person)
      const held = seatOf.get(person)
      if (held === undefined || place(held, tried)) {
        seatOf.set(person, seat)
        return true
      }
    }
    return false
  }
  return seats.every((_, seat) => place(seat, new Set()))
}
