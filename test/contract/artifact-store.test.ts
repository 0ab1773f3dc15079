import { join } from 'node:path'
import { openFileStore } from '../../src/artifact/store.ts'
import { folder } from '../ledger/folder.ts'
import { artifactStoreContract } from './artifact-store.ts'

artifactStoreContract('files', () => {
  const dir = join(folder(), 'artifacts')
  return { store: openFileStore(dir), reopen: () => openFileStore(dir) }
})
