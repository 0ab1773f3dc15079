import type { Engine } from '../../servers/engine.ts'

/** What a campaign runs its scripts in, and what there is of it outside of Writ's own processes. */
export interface Sandbox {
  /** Lines of writ.yaml beside those `writ init` writes. */
  readonly config: string
  /** Members of a target, one line each; different ones by turns. */
  readonly targets: readonly (readonly string[])[]
  /** Writes `mark` to the service once, and to `$WRIT_OUT`; a slow one prints for 200 ms first. */
  script(mark: string, slow: boolean): { readonly path: string; readonly content: string }
  /** Sandboxes of that owner that live outside of processes below the run host. */
  living(owner: string): Promise<readonly string[]>
  /** Kills one of them; false where it was gone. */
  kill(id: string): Promise<boolean>
}

export const isolates: Sandbox = {
  config: '',
  targets: [['executor: isolate']],
  script: (mark, slow) => ({
    path: 'main.js',
    content: `${
      slow
        ? "for (let n = 0; n < 20; n++) { console.log('tick', n); await new Promise((resolve) => setTimeout(resolve, 10)) }\n"
        : ''
    }const { env } = writ
const answer = await fetch(env.EFFECTS + '/', { method: 'POST', headers: { authorization: 'Bearer ' + env.TOKEN }, body: '${mark}' })
console.log(answer.status, await answer.text())
if (!answer.ok) throw new Error('the line was not written')
writ.writeFile('/out/seen.txt', '${mark}')
`,
  }),
  living: async () => await Promise.resolve([]),
  kill: async () => await Promise.resolve(false),
}

/** Containers of an engine, under each of its runtimes by turns. */
export function containers(engine: Engine, runtimes: readonly (string | null)[]): Sandbox {
  return {
    config: `docker: { host: "${engine.host}", warm: 1 }\n`,
    targets: runtimes.map((runtime) => [
      'executor: docker',
      'image: writ/python',
      ...(runtime === null ? [] : [`container: { oci_runtime: ${runtime} }`]),
    ]),
    script: (mark, slow) => ({
      path: 'main.py',
      content: `import os, time, urllib.request
${slow ? "for n in range(20):\n    print('tick', n, flush=True)\n    time.sleep(0.01)\n" : ''}request = urllib.request.Request(os.environ['EFFECTS'] + '/', data=b'${mark}', headers={'authorization': 'Bearer ' + os.environ['TOKEN']})
with urllib.request.urlopen(request) as answer:
    print(answer.status, answer.read())
open('/out/seen.txt', 'w').write('${mark}')
`,
    }),
    async living(owner) {
      const filters = encodeURIComponent(JSON.stringify({ label: [`dev.writ.owner=${owner}`] }))
      const list = (await engine.ask('GET', `/containers/json?all=1&filters=${filters}`)) as readonly {
        readonly Id: string
      }[]
      return list.map((one) => one.Id)
    },
    async kill(id) {
      return await engine.ask('POST', `/containers/${id}/kill`).then(
        () => true,
        () => false,
      )
    },
  }
}
