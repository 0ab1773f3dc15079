import type { CredentialSource } from './credential.ts'
import { openEnvSource } from './env/env.ts'
import { openFileSource } from './file/file.ts'

export const sourceKinds = ['env', 'file'] as const
export type SourceKind = (typeof sourceKinds)[number]

export interface SourcesConfig {
  /** Variables that credentials may be read from. */
  readonly env: ReadonlyMap<string, string>
  /** The folder of encrypted values and the identity they are encrypted for. */
  readonly file: { readonly dir: string; readonly identityFile: string }
}

function openSource(kind: SourceKind, config: SourcesConfig): CredentialSource {
  switch (kind) {
    case 'env':
      return openEnvSource(config.env)
    case 'file':
      return openFileSource(config.file)
  }
}

/** Every credential source by its kind. Opening reads nothing: a source is asked when a run needs it. */
export function openSources(config: SourcesConfig): ReadonlyMap<string, CredentialSource> {
  return new Map(sourceKinds.map((kind) => [kind, openSource(kind, config)]))
}
