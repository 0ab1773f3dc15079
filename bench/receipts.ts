import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../src/clock.ts'
import { digestOf } from '../src/digest.ts'
import { openSqliteLedger } from '../src/ledger/sqlite/sqlite.ts'
import type { Ledger } from '../src/ledger/ledger.ts'
import { genesisAccount } from '../src/receipt/account.ts'
import { initKeys } from '../src/receipt/keys.ts'
import type { Account } from '../src/receipt/receipt.ts'
import { openSigner } from '../src/receipt/sign.ts'
import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'

/** Milliseconds of measuring, after a tenth of that to warm up. */
const span = 3_000

/** Real receipts, signed and synced to disk: how many a second with 64 asked for at once, and how long one alone takes. */
export async function run(): Promise<readonly Figure[]> {
  const dir = mkdtempSync(join(tmpdir(), 'writ-bench-'))
  try {
    const keys = initKeys(join(dir, 'keys'), systemClock.now())
    const signer = openSigner(keys, { issuer: null })
    const ledger = openSqliteLedger({ path: join(dir, 'ledger.db'), signer, clock: systemClock })
    try {
      await ledger.append({ kind: 'sign', execution: null, account: genesisAccount(keys, systemClock.now()) })
      await throughput(ledger, 64, span / 10)
      const before = process.cpuUsage()
      const many = await throughput(ledger, 64, span)
      const used = process.cpuUsage(before)
      const alone = await throughput(ledger, 1, span / 3)
      const bytes = ledger.views.receipts(1, 1)[0]?.jws.length ?? 0
      const perSecond = Math.round((many.length / span) * 1_000)
      return [
        {
          name: 'receipts',
          figure: `${perSecond} durable receipts/s`,
          goal: '5000 durable receipts/s',
          reached: perSecond >= 5_000,
          detail: `64 in flight, ${bytes} bytes each, signed and committed with synchronous=FULL; batch p50 ${quantile(many, 0.5).toFixed(2)} ms, p99 ${quantile(many, 0.99).toFixed(2)} ms; ${Math.round((used.user + used.system) / many.length)} us of CPU each, signing included; one in flight p50 ${quantile(alone, 0.5).toFixed(2)} ms, p99 ${quantile(alone, 0.99).toFixed(2)} ms, mostly the disk's own sync`,
        },
      ]
    } finally {
      ledger.close()
    }
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** Appends with `lanes` receipts in flight for `ms`; returns how long each took. */
async function throughput(ledger: Ledger, lanes: number, ms: number): Promise<readonly number[]> {
  const taken: number[] = []
  const until = performance.now() + ms
  async function lane(): Promise<void> {
    for (;;) {
      const began = performance.now()
      if (began >= until) return
      await ledger.append({ kind: 'sign', execution: null, account: decisionLike() })
      taken.push(performance.now() - began)
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  return taken
}

const some = digestOf('some')

/** As many members, in clear and salted, as the receipt of a decision on a run has. */
function decisionLike(): Account {
  return {
    kind: 'decision',
    subject: 'user:ada',
    agent: 'agent:claude',
    task: 'task_aaaaaaaaaa',
    happened_at_ms: systemClock.now(),
    subjects: [{ name: 'plan', digest: some }],
    clear: {
      invocationId: 'exec_aaaaaaaaaa',
      result: 'allow',
      decision: 'dec_aaaaaaaaaa',
      target_ref: 'vault-staging',
      intent: 'run_script',
      isolation: 'process',
      lanes: ['placeholder'],
      generation: 1,
      policy: some,
      input: some,
      requirement: null,
      approvals: [],
    },
    salted: {
      rules: ['org/four-eyes', 'starter/sandbox'],
      error: null,
      image: null,
      sandbox: some,
      services: [{ name: 'vault', url: 'https://vault.staging.example:8200' }],
      hosts: [],
      credentials: ['vault-token'],
      executor: 'isolate',
      limits: { wall_s: 60, cpu_s: 60, memory_mb: 256, output_kb: 1024, artifact_kb: 1024, egress_requests: 100 },
    },
    asserted: { client: 'bench' },
  }
}
