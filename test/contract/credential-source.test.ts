import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe } from 'vitest'
import { createIdentityFile, openFileSource } from '../../src/credential/file/file.ts'
import { openEnvSource } from '../../src/credential/env/env.ts'
import { Secret } from '../../src/credential/secret.ts'
import { credentialSourceContract } from './credential-source.ts'

const folders: string[] = []
afterAll(async () => {
  for (const folder of folders) await rm(folder, { recursive: true, force: true })
})

describe('the source env', () => {
  credentialSourceContract(() => {
    const variables = new Map<string, string>()
    return Promise.resolve({
      source: openEnvSource(variables),
      put: (name, value) => {
        const variable = name.toUpperCase().replaceAll('-', '_')
        variables.set(variable, value)
        return Promise.resolve(variable)
      },
      places: ['API_TOKEN'],
    })
  })
})

describe('the source file', () => {
  credentialSourceContract(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'writ-source-'))
    folders.push(folder)
    const identityFile = join(folder, 'identity')
    await createIdentityFile(identityFile)
    const source = openFileSource({ dir: join(folder, 'values'), identityFile })
    return {
      source,
      put: async (name, value) => {
        await source.set(name, Secret.ingest(name, value))
        return name
      },
      places: [folder, identityFile],
    }
  })
})
