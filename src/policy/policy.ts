import type { Digest, Json, JsonObject } from '../digest.ts'
import type { DecisionId } from '../id.ts'
import type { EgressMode, Isolation, Limits } from '../plan/plan.ts'

export type Phase = 'request' | 'execution' | 'approval' | 'egress'
export type Evidence = 'passkey' | 'key' | 'bearer'
export type Effect = 'allow' | 'deny' | 'pending' | 'error'

/** A verified, eligible and bound verdict, as policy sees it. */
export interface InputApproval {
  readonly id: string
  readonly stage: string
  readonly verdict: 'approve' | 'reject'
  readonly by: string
  readonly roles: readonly string[]
  readonly evidence: Evidence
  readonly at_s: number
  readonly until_s: number
}

/** `writ.input/v1`: AuthZEN's shape. Every field is always present; nothing here is ever a secret's value. */
export interface PolicyInput {
  readonly schema: 'writ.input/v1'
  readonly phase: Phase
  readonly subject: {
    readonly type: 'user' | 'service'
    readonly id: string
    readonly properties: {
      readonly tenant: string
      readonly roles: readonly string[]
      readonly auth: { readonly method: 'socket' | 'token' | 'oauth'; readonly age_s: number }
      readonly agent: { readonly id: string; readonly asserted: { readonly client: string; readonly version: string } }
    }
  }
  readonly action: { readonly name: string; readonly properties: { readonly arguments: JsonObject } }
  readonly resource: {
    readonly type: 'target' | 'task' | 'execution' | 'approval' | 'artifact' | 'receipt' | 'service' | 'none'
    readonly id: string
    readonly properties: {
      readonly owner: string | null
      readonly tenant: string | null
      readonly labels: Readonly<Record<string, string>>
    }
  }
  readonly context: {
    readonly time: {
      readonly rfc3339: string
      readonly unix_s: number
      readonly weekday: 'mon' | 'tue' | 'wed' | 'thu' | 'fri' | 'sat' | 'sun'
      readonly minute_of_day: number
    }
    readonly counters: { readonly executions_60m: number; readonly denied_10m: number; readonly running: number }
    readonly task: {
      readonly project_name: string
      readonly intent: string
      readonly goal: string
      readonly context: string
      readonly inputs: JsonObject
      readonly files: readonly { readonly path: string; readonly sha256: string; readonly size: number }[]
    } | null
    readonly plan: {
      readonly digest: string
      readonly executor: string
      readonly isolation: Isolation
      readonly egress: EgressMode
      readonly delivery: readonly string[]
      readonly kill: 'confirmed' | 'best_effort'
      readonly image: JsonObject | null
      readonly runtime: string
      readonly code_origin: 'caller' | 'operator'
      readonly steps: readonly { readonly title: string; readonly argv: readonly string[] }[]
      readonly services: readonly string[]
      readonly hosts: readonly string[]
      readonly credentials: readonly { readonly name: string; readonly lane: string; readonly exposure: string }[]
      readonly limits: Limits
    } | null
    readonly approvals: readonly InputApproval[]
    readonly verdict: {
      readonly approval_id: string
      readonly stage: string
      readonly verdict: 'approve' | 'reject'
      readonly evidence: Evidence
      readonly requirement: string
    } | null
    readonly call: {
      readonly service: string
      readonly host: string
      readonly port: number
      readonly method: string
      readonly path: string
      readonly size: number
      readonly credential: string | null
    } | null
    readonly supported_obligations: readonly string[]
    /** What of this input is not all there is: too large or too deep to be decided on. Empty where policy sees everything. */
    readonly truncated: readonly ('arguments' | 'task.files')[]
  }
}

/** Names the rule that spoke: `rego.metadata.rule()` carries `title` and `custom: {id, code, remedy}`. */
export interface RuleRef {
  readonly id: string
  readonly title: string
  readonly code: string
  readonly remedy: string
}

export interface Stage {
  readonly id: string
  readonly roles: readonly string[]
  readonly min: number
}

/** One pack's answer, as partial sets: no conflict can occur. */
export interface PackOutput {
  readonly grant: readonly { readonly rule: RuleRef }[]
  readonly deny: readonly { readonly rule: RuleRef; readonly message: string | null }[]
  readonly require_approval: readonly {
    readonly rule: RuleRef
    readonly stages: readonly Stage[]
    readonly exclude: readonly ('agent' | 'subject')[]
    readonly evidence: readonly Evidence[]
    readonly request_ttl_s: number
    readonly execute_within_s: number
    readonly message: string | null
  }[]
  readonly limit: readonly ({ readonly rule: RuleRef } & { readonly [L in keyof Limits]?: number })[]
  readonly credential: readonly {
    readonly rule: RuleRef
    readonly name: string
    readonly lane: string | null
    readonly exposure: string | null
  }[]
  readonly sandbox: readonly {
    readonly rule: RuleRef
    readonly isolation: Isolation | null
    readonly egress: EgressMode | null
  }[]
  readonly obligation: readonly { readonly rule: RuleRef; readonly type: string; readonly properties: Json }[]
  readonly warn: readonly { readonly rule: RuleRef; readonly message: string }[]
}

/** Who has to say yes, on what evidence, and in what time. Its digest pins it into every verdict. */
export interface Requirement {
  readonly stages: readonly Stage[]
  readonly exclude: readonly ('agent' | 'subject')[]
  readonly evidence: readonly Evidence[]
  readonly request_ttl_s: number
  readonly execute_within_s: number
}

export type DecisionErrorCode =
  | 'policy_undefined'
  | 'policy_throw'
  | 'builtin_error'
  | 'output_schema'
  | 'input_rejected'
  | 'deadline'
  | 'no_generation'

export interface Finding {
  /** `<pack>/<rule id>`. */
  readonly id: string
  readonly layer: string
  readonly kind:
    | 'grant'
    | 'deny'
    | 'require_approval'
    | 'limit'
    | 'credential'
    | 'sandbox'
    | 'obligation'
    | 'warn'
    | 'error'
  readonly code: string
  readonly title: string
  /** `file:line` in the pack. */
  readonly at: string
  readonly message: string
}

/** All a caller sees of a refusal. */
export interface Reason {
  readonly code: string
  readonly message: string
  readonly remedy: string
  readonly ref: string
}

export interface Decision {
  readonly schema: 'writ.decision/v1'
  readonly id: DecisionId
  readonly at_ms: number
  readonly phase: Phase
  readonly effect: Effect
  readonly error: DecisionErrorCode | null
  /** For the operator and the auditor, never for the caller. */
  readonly findings: readonly Finding[]
  readonly grants: readonly string[]
  /** Present on `pending`, and on the `allow` that approvals satisfied. */
  readonly requirement: Requirement | null
  readonly requirement_digest: Digest | null
  /** Only what policy lowered; absent means no opinion. */
  readonly limits: { readonly [L in keyof Limits]?: number }
  /** Names the permit may lease. */
  readonly credentials: readonly string[]
  readonly generation: number
  /** Digest of that generation; null where none was in force. */
  readonly policy: Digest | null
  readonly modules: readonly { readonly pack: string; readonly layer: string; readonly digest: Digest }[]
  readonly input_digest: Digest
  /** Empty on a clean allow. */
  readonly reasons: readonly Reason[]
}

/** A layer's pack as `writ.yaml` attaches it. */
export interface Attachment {
  readonly pack: string
  readonly layer: 'org' | 'team'
  readonly kind: 'guard' | 'grant'
  /** Absolute folder of its `.rego` files. */
  readonly path: string
}

/** A pack compiled and checked, ready to load into an engine; what the run host is sent for phase `egress`. */
export interface CompiledPack {
  readonly pack: string
  readonly layer: 'org' | 'team'
  readonly kind: 'guard' | 'grant'
  readonly module: Uint8Array
  readonly digest: Digest
  /** `file:line` and metadata of each rule of an output set, by rule id. */
  readonly rules: Readonly<
    Record<string, { readonly at: string; readonly title: string; readonly code: string; readonly remedy: string }>
  >
}

/** An immutable set of packs in force. An edit makes the next one; a bad edit never replaces a good one. */
export interface Generation {
  readonly number: number
  /** Digest over the canonical list of `{pack, layer, kind, digest}`. */
  readonly digest: Digest
  readonly packs: readonly CompiledPack[]
}

/** Never rejects: a policy that cannot answer answers `error`, which counts as deny. */
export interface Policy {
  decide(input: PolicyInput): Promise<Decision>
  readonly generation: Generation | null
}
