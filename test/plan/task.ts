import { digestOf } from '../../src/digest.ts'
import type { TaskId } from '../../src/id.ts'
import type { Task } from '../../src/request/task.ts'

export type Files = Readonly<Record<string, string>>

/** A task of these files that asks for a script in the sandbox, but for what is given. */
export function taskOf(files: Files, given: Partial<Task> = {}): Task {
  return {
    id: 'task_aaaaaaaaaa' as TaskId,
    tenant: 'default',
    owner: 'me',
    agent: 'agent',
    project_name: 'p',
    goal: 'g',
    target_ref: 'sandbox',
    intent: 'run_script',
    inputs: {},
    context: '',
    constraints: { time_s: null, memory_mb: null },
    files: Object.entries(files)
      .map(([path, content]) => ({ path, sha256: digestOf(content), size: content.length, executable: false }))
      .sort((a, b) => (a.path < b.path ? -1 : 1)),
    revision: 1,
    created_at_ms: 0,
    ...given,
  }
}
