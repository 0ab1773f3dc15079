/** `WRIT` in ASCII: tells `file` and a careless hand what this database is. */
export const applicationId = 0x57524954

/**
 * The schema, one text per version; `user_version` counts how many are in force. A text that has been released is never
 * edited. `steps`, `disclosures` and `origin` hold what cannot be made again; everything else is a view of `steps`.
 *
 * Disclosures lie outside the steps, so that an erasure can take a salt away without touching what is append-only.
 */
export const migrations: readonly string[] = [
  `
  CREATE TABLE steps (
    position  INTEGER PRIMARY KEY,
    at_ms     INTEGER NOT NULL,
    execution TEXT,
    kind      TEXT NOT NULL,
    body      TEXT NOT NULL
  ) STRICT;
  CREATE INDEX steps_execution ON steps (execution, position) WHERE execution IS NOT NULL;
  CREATE TRIGGER steps_keep_update BEFORE UPDATE ON steps BEGIN SELECT RAISE(ABORT, 'steps are append-only'); END;
  CREATE TRIGGER steps_keep_delete BEFORE DELETE ON steps BEGIN SELECT RAISE(ABORT, 'steps are append-only'); END;

  CREATE TABLE disclosures (log_index INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
  CREATE TABLE origin (only INTEGER PRIMARY KEY CHECK (only = 1), origin TEXT NOT NULL) STRICT;

  CREATE TABLE tasks (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, owner TEXT NOT NULL, revision INTEGER NOT NULL,
    first INTEGER NOT NULL, position INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX tasks_tenant ON tasks (tenant, first);

  CREATE TABLE plans (digest TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;

  CREATE TABLE executions (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, owner TEXT NOT NULL, task TEXT NOT NULL, target TEXT NOT NULL,
    plan TEXT NOT NULL, state TEXT, ran INTEGER NOT NULL, reasons TEXT NOT NULL, approval TEXT, permit INTEGER,
    created_at_ms INTEGER NOT NULL, changed_at_ms INTEGER NOT NULL, position INTEGER NOT NULL,
    outcome INTEGER, outcome_receipt TEXT
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX executions_position ON executions (position);
  CREATE INDEX executions_task ON executions (task, position);
  CREATE INDEX executions_owner ON executions (tenant, owner, created_at_ms);
  CREATE INDEX executions_state ON executions (state, position);
  CREATE INDEX executions_running ON executions (tenant, owner) WHERE state = 'running';
  CREATE INDEX executions_denied ON executions (tenant, owner, changed_at_ms) WHERE state = 'denied';

  CREATE TABLE decisions (
    id TEXT PRIMARY KEY, execution TEXT, effect TEXT NOT NULL, position INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX decisions_execution ON decisions (execution, position) WHERE execution IS NOT NULL;

  CREATE TABLE approvals (
    id TEXT PRIMARY KEY, execution TEXT NOT NULL, tenant TEXT NOT NULL, state TEXT NOT NULL, execute_by_ms INTEGER,
    satisfied INTEGER, position INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX approvals_position ON approvals (position);
  CREATE INDEX approvals_execution ON approvals (execution, position);
  CREATE INDEX approvals_state ON approvals (state, position);
  CREATE TABLE verdicts (
    approval TEXT NOT NULL, person TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (approval, person)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE leases (
    id TEXT PRIMARY KEY, execution TEXT NOT NULL, credentials TEXT NOT NULL, state TEXT NOT NULL, position INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX leases_state ON leases (state, position);

  CREATE TABLE idempotency (
    tenant TEXT NOT NULL, subject TEXT NOT NULL, key TEXT NOT NULL, request TEXT NOT NULL, result TEXT NOT NULL,
    PRIMARY KEY (tenant, subject, key)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE refusals (position INTEGER PRIMARY KEY, tenant TEXT NOT NULL, caller TEXT NOT NULL, at_ms INTEGER NOT NULL) STRICT;
  CREATE INDEX refusals_caller ON refusals (tenant, caller, at_ms);

  CREATE TABLE artifacts (
    digest TEXT NOT NULL, tenant TEXT NOT NULL, task TEXT NOT NULL, owner TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (digest, tenant, task)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE newest (what TEXT PRIMARY KEY, number INTEGER, digest TEXT NOT NULL) STRICT, WITHOUT ROWID;

  CREATE TABLE receipts (
    log_index INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, execution TEXT, at_ms INTEGER NOT NULL,
    digest TEXT NOT NULL, position INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX receipts_execution ON receipts (execution, log_index) WHERE execution IS NOT NULL;
  CREATE TABLE head (only INTEGER PRIMARY KEY CHECK (only = 1), size INTEGER NOT NULL, root BLOB NOT NULL, peaks BLOB NOT NULL) STRICT;
  `,
  `
  CREATE TABLE tokens (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, subject TEXT NOT NULL, revoked_at_ms INTEGER,
    position INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX tokens_subject ON tokens (tenant, subject, position);
  CREATE INDEX tokens_position ON tokens (position);
  CREATE TABLE seen_roles (
    tenant TEXT NOT NULL, subject TEXT NOT NULL, agent TEXT NOT NULL, as_of_ms INTEGER NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (tenant, subject, agent)
  ) STRICT, WITHOUT ROWID;
  `,
]

/** Every table that is a view: emptied and filled again from the steps by a rebuild. */
export const viewTables = [
  'tasks',
  'plans',
  'executions',
  'decisions',
  'approvals',
  'verdicts',
  'leases',
  'idempotency',
  'refusals',
  'artifacts',
  'newest',
  'tokens',
  'seen_roles',
  'receipts',
  'head',
] as const
