import type { Digest, JsonObject } from '../digest.ts'
import type { TaskFile } from '../request/task.ts'
import type { TaskId } from '../id.ts'

/** Weakest first; a policy may demand a level. Not known counts as `host`. */
export const isolationLevels = ['host', 'process', 'namespaces', 'container', 'user-kernel', 'vm'] as const
export type Isolation = (typeof isolationLevels)[number]

/** Strictest first. */
export const egressModes = ['closed', 'gateway', 'open'] as const
export type EgressMode = (typeof egressModes)[number]

export interface Limits {
  readonly wall_s: number
  readonly cpu_s: number
  readonly memory_mb: number
  /** Both streams together. */
  readonly output_kb: number
  /** All files of `$WRIT_OUT` together. */
  readonly artifact_kb: number
  readonly egress_requests: number
}

/** How a credential enters a request. */
export type Injection =
  | { readonly kind: 'header'; readonly header: string; readonly prefix: string }
  | { readonly kind: 'bearer' }
  | { readonly kind: 'basic'; readonly username: string }

/** A thing the run may talk to by name. `url`, `addresses` and `ca` never leave the operator's view. */
export interface PlanService {
  readonly name: string
  readonly about: string
  readonly url: string
  readonly credential: string | null
  /** CIDR ranges the service may resolve to beside globally routable addresses. */
  readonly addresses: readonly string[]
  /** PEM of the certificate authority to trust instead of the system's, or null. */
  readonly ca: string | null
  /** Megabytes of the largest archive that a container may download from it; where it is absent, no more than of any answer. */
  readonly download_mb?: number
}

export interface PlanCredential {
  readonly name: string
  readonly source: { readonly kind: string; readonly ref: string }
  readonly inject: Injection
  readonly lane: 'placeholder'
  readonly exposure: 'none'
}

export type EnvironmentValue =
  | { readonly kind: 'literal'; readonly value: string }
  /** The base URL of the service inside the sandbox, `http://127.0.0.1:3128/<service>`, and behind it `/<path>`. */
  | { readonly kind: 'service'; readonly service: string; readonly path?: string }
  /** The per-run placeholder of the credential, never its value. */
  | { readonly kind: 'placeholder'; readonly credential: string }

export interface PlanStep {
  readonly title: string
  readonly argv: readonly string[]
  /** Exit codes the intent calls success. */
  readonly success: readonly number[]
}

/** What would run, fully resolved and frozen. Its digest is SHA-256 over its RFC 8785 form. */
export interface Plan {
  readonly schema: 'writ.plan/v1'
  /** 128 random bits in hex: makes the digest unguessable and one of a kind. */
  readonly nonce: string
  readonly tenant: string
  readonly task: {
    readonly id: TaskId
    readonly revision: number
    readonly owner: string
    readonly agent: string
    readonly project_name: string
    readonly goal: string
    readonly context: string
    readonly inputs: JsonObject
  }
  readonly target: { readonly ref: string; readonly about: string; readonly labels: Readonly<Record<string, string>> }
  readonly intent: string
  readonly code_origin: 'caller' | 'operator'
  readonly executor: string
  /** The executor's own frozen settings (a container's create body later; the isolate's options now). */
  readonly engine: JsonObject
  readonly image: PlanImage | null
  readonly runtime: string
  readonly environment: readonly { readonly name: string; readonly about: string; readonly value: EnvironmentValue }[]
  readonly steps: readonly PlanStep[]
  /** Text for the first step's standard input, or null. */
  readonly stdin: string | null
  readonly files: readonly TaskFile[]
  readonly services: readonly PlanService[]
  /** Other hosts than services; empty until they come with containers. */
  readonly hosts: readonly JsonObject[]
  readonly credentials: readonly PlanCredential[]
  readonly limits: Limits
  readonly statement: {
    readonly isolation: Isolation
    readonly egress: EgressMode
    readonly delivery: readonly string[]
    readonly kill: 'confirmed' | 'best_effort'
  }
  /** Digest of every catalog entry used; an execution is superseded when one of these changed. */
  readonly entries: readonly { readonly entry: string; readonly digest: Digest }[]
}

/** Which image a run was planned for. Containers are created by its id; nothing is pulled at run time. */
export type PlanImage = {
  /** As the catalog names it. */
  readonly name: string
  /** The engine's id of it: `sha256:` and 64 hex digits. */
  readonly id: string
  /** What kind of store the id is of: an id means something else in each. */
  readonly store: 'graphdriver' | 'containerd'
  /** Digest of its manifest where it came from a registry, else null. */
  readonly digest: string | null
  /** Go's name of the architecture it is for. */
  readonly arch: string
  /** SHA-256 of the agent inside, read out of the image itself. */
  readonly agent: Digest
}

/** What a kind of sandbox has here, by the broker's own probe and never by foreign code. */
export interface Facts {
  /** Only images that can be run: there, with an agent that this Writ ships. */
  readonly images: ReadonlyMap<string, PlanImage>
  /** OCI runtimes the engine knows, its default as the empty text. */
  readonly runtimes: ReadonlySet<string>
}

/** Something a task still needs before it can run. */
export interface Missing {
  readonly what: string
  readonly fix: string
  /** What supplies it: files of this task unless told, another task, another look at the catalog, or people. */
  readonly by?: 'task' | 'catalog' | 'people'
  /** The target such a task or look is for; for a task, its own unless told. */
  readonly target_ref?: string
  /** True where nothing is wrong with the task, but its target cannot be run on now. */
  readonly unavailable?: boolean
}

export type Resolution =
  | { readonly state: 'ready'; readonly plan: Plan; readonly digest: Digest }
  | { readonly state: 'incomplete'; readonly missing: readonly Missing[] }
