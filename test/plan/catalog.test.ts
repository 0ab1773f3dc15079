import { X509Certificate } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rootCertificates } from 'node:tls'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { WritError } from '../../src/error.ts'
import { entryDigest, loadCatalog } from '../../src/plan/catalog.ts'
import type { Catalog } from '../../src/plan/catalog.ts'
import { limitSettings } from '../../src/plan/limits.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'writ-catalog-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

function load(text: string, limits = limitSettings()): Catalog {
  writeFileSync(join(folder, 'catalog.yaml'), text)
  return loadCatalog(join(folder, 'catalog.yaml'), limits)
}

function refusal(text: string): string {
  try {
    load(text)
  } catch (error) {
    if (error instanceof WritError && error.code === 'invalid_catalog') return error.message
    throw error
  }
  throw new Error('the catalog was taken')
}

const head = 'about: x, executor: isolate, intents: [run_script]'
const target = (rest: string) =>
  `targets:\n  t: { ${head}, ${rest} }\ncredentials:\n  tok: { source: { file: tok }, inject: { bearer: true } }\n`
const service = (rest: string) => target(`services: { s: { about: y, ${rest} } }`)
const intent = (rest: string, name = 'report') =>
  `targets:\n  t: { about: x, executor: isolate, intents: [${name}] }\nintents:\n  ${name}: { about: r, ${rest} }\n`

describe('catalog.yaml', () => {
  test('the example of the documentation loads, with everything resolved', () => {
    const page = readFileSync(new URL('../../docs/catalog.md', import.meta.url), 'utf8')
    const example = /```yaml catalog.yaml\n([^]*?)```/.exec(page)?.[1] ?? ''
    mkdirSync(join(folder, 'report'))
    writeFileSync(join(folder, 'report/main.js'), 'console.log(1)')
    const catalog = load(example)
    const orders = catalog.targets.get('orders-staging')
    expect(orders?.services).toEqual([
      {
        name: 'orders',
        about: 'Orders API',
        url: 'https://orders.staging.example/v1',
        credential: 'orders-token',
        addresses: [],
        ca: null,
      },
    ])
    expect(orders?.environment.map(({ name, value }) => [name, value.kind])).toEqual([
      ['ORDERS_URL', 'service'],
      ['ORDERS_TOKEN', 'placeholder'],
      ['REGION', 'literal'],
    ])
    expect(orders?.limits).toMatchObject({ wall_s: 120, cpu_s: 30, memory_mb: 256 })
    expect(catalog.credentials.get('orders-token')).toEqual({
      name: 'orders-token',
      source: { kind: 'file', ref: 'orders-token' },
      inject: { kind: 'bearer' },
      lane: 'placeholder',
      exposure: 'none',
    })
    expect([...catalog.intents.keys()]).toEqual(['run_script', 'install_and_test', 'build', 'report'])
    expect([...catalog.files.values()].map(String)).toEqual(['console.log(1)'])
    expect(catalog.sources).toEqual([join(folder, 'catalog.yaml'), join(folder, 'report/main.js')])
  })

  test('every executor is read; only the isolate has fewer runtimes than it is given', () => {
    const catalog = load(
      `targets:\n${['docker', 'ssh', 'kubernetes', 'http', 'process'].map((kind) => `  t-${kind}: { about: x, executor: ${kind}, ${kind === 'docker' ? 'image: writ/python, ' : ''}intents: [run_script] }`).join('\n')}`,
    )
    expect([...catalog.targets.values()].map((one) => [one.executor, one.runtimes.length])).toEqual([
      ['docker', 5],
      ['ssh', 6],
      ['kubernetes', 6],
      ['http', 0],
      ['process', 6],
    ])
  })

  test('names such as "constructor" are names like any other', () => {
    const catalog = load(
      'targets:\n  constructor: { about: x, executor: isolate, intents: [run_script], services: { valueof: { url: "https://a.example", about: y, credential: constructor } }, environment: { constructor: { service: valueof } } }\ncredentials:\n  constructor: { source: { env: toString }, inject: { header: X-A } }\n',
    )
    expect(catalog.targets.get('constructor')?.services[0]?.credential).toBe('constructor')
    expect(catalog.targets.get('toString')).toBeUndefined()
    expect(catalog.targets.get('__proto__')).toBeUndefined()
    expect(entryDigest(catalog, 'target:constructor')).toMatch(/^sha256:/)
    expect(entryDigest(catalog, 'target:valueOf')).toBeNull()
    expect(entryDigest(catalog, 'constructor')).toBeNull()
    expect(entryDigest(catalog, 'target')).toBeNull()
    expect(entryDigest(catalog, '')).toBeNull()
  })

  test.each([
    [
      'an unknown key',
      'targets:\n  t:\n    about: x\n    executr: isolate\n    intents: [run_script]\n',
      'catalog.yaml:4:5: unknown key "executr" in targets.t; did you mean "executor"?',
    ],
    [
      'an unknown key of a service',
      service('url: "https://a.example", adresses: []'),
      'unknown key "adresses" in targets.t.services.s; did you mean "addresses"?',
    ],
    [
      'an unknown executor',
      'targets:\n  t: { about: x, executor: lambda, intents: [run_script] }\n',
      'targets.t.executor: ',
    ],
    [
      'a target without intents',
      'targets:\n  t: { about: x, executor: isolate, intents: [] }\n',
      'name at least one intent',
    ],
    ['no targets at all', 'credentials: {}', 'the file lacks "targets"'],
    ['a name in capitals', `targets:\n  Prod: { ${head} }\n`, 'catalog.yaml:2:3: targets.Prod: a name is a-z'],
    [
      'an intent nobody defined',
      'targets:\n  t: { about: x, executor: isolate, intents: [run_scrip] }\n',
      'there is no intent "run_scrip"; did you mean "run_script"?',
    ],
    ['an image on an isolate', target('image: python'), 'an isolate has no image'],
    ['a runtime the isolate lacks', target('runtimes: [javascript, python]'), 'does not run python'],
    [
      'a credential nobody defined',
      service('url: "https://a.example", credential: tk'),
      'there is no credential "tk"; did you mean "tok"?',
    ],
    ['plain http', service('url: "http://a.example"'), 'the URL is plain http'],
    [
      'plain http beyond loopback',
      service('url: "http://a.example", addresses: [10.0.0.0/8, 127.0.0.0/8]'),
      'have to be loopback ranges only',
    ],
    ['another scheme', service('url: "file:///etc/passwd"'), 'has to begin with https://'],
    ['a user in the URL', service('url: "https://a:b@h.example"'), 'must not carry a user or password'],
    ['a query in the URL', service('url: "https://h.example/?token=abc"'), 'must not carry a query or fragment'],
    ['an escaped slash in the URL', service('url: "https://h.example/a%2Fb"'), 'escaped slash'],
    ['a backslash in the URL', service('url: "https://h.example\\\\@evil.example"'), 'has to be plain ASCII'],
    [
      'an address that is no range',
      service('url: "https://h.example", addresses: [10.0.0.1]'),
      'is not an address range',
    ],
    ['all addresses', service('url: "https://h.example", addresses: [0.0.0.0/0]'), 'is too wide'],
    ['metadata addresses', service('url: "https://h.example", addresses: [169.254.169.254/32]'), 'link-local'],
    ['a ca outside the folder', service('url: "https://h.example", ca: ../ca.pem'), 'empty, "." or ".." part'],
    ['an absolute ca', service('url: "https://h.example", ca: /etc/ssl/ca.pem'), 'has to be relative'],
    ['a ca that is not there', service('url: "https://h.example", ca: ca.pem'), '"ca.pem" does not exist'],
    [
      'two kinds of value',
      target('environment: { A: { value: x, service: s } }'),
      'give exactly one of service, placeholder, value',
    ],
    ['no kind of value', target('environment: { A: { about: x } }'), 'give exactly one of'],
    ['a variable for an unknown service', target('environment: { A: { service: s } }'), 'there is no service "s"'],
    ['a placeholder no service swaps', target('environment: { A: { placeholder: tok } }'), 'would never be swapped'],
    ['a variable of the executor', target('environment: { WRIT_OUT: { value: x } }'), "is the executor's own"],
    [
      'a variable that loads code',
      target('environment: { NODE_OPTIONS: { value: --require=x } }'),
      "is the executor's own",
    ],
    ['a proxy variable in lower case', target('environment: { https_proxy: { value: x } }'), "is the executor's own"],
    ['a variable with "="', target('environment: { "A=B": { value: x } }'), 'the name of an environment variable'],
    ['a limit beyond the maximum', target('limits: { wall_s: 4000 }'), '"wall_s" is more than the maximum 3600'],
    ['too little memory', target('limits: { memory_mb: 4 }'), 'less than the 16'],
    [
      'two sources',
      'targets: {}\ncredentials:\n  a: { source: { file: x, env: Y }, inject: { bearer: true } }\n',
      'credentials.a.source: give exactly one of file, env',
    ],
    [
      'a source with a path',
      'targets: {}\ncredentials:\n  a: { source: { file: ../x }, inject: { bearer: true } }\n',
      'a file name without folders',
    ],
    [
      'a value in the catalog',
      'targets: {}\ncredentials:\n  a: { source: { value: hunter2hunter2 }, inject: { bearer: true } }\n',
      'unknown key "value" in credentials.a.source; known keys: file, env',
    ],
    [
      'two injections',
      'targets: {}\ncredentials:\n  a: { source: { env: Y }, inject: { bearer: true, header: X } }\n',
      'give exactly one of header, bearer, basic',
    ],
    [
      'a prefix without header',
      'targets: {}\ncredentials:\n  a: { source: { env: Y }, inject: { bearer: true, prefix: x } }\n',
      '"prefix" belongs beside "header"',
    ],
    [
      'a header that steers',
      'targets: {}\ncredentials:\n  a: { source: { env: Y }, inject: { header: Host } }\n',
      'the header "Host" cannot carry a credential',
    ],
    [
      'a header with a line end',
      'targets: {}\ncredentials:\n  a: { source: { env: Y }, inject: { header: "X\\r\\nY" } }\n',
      'not the name of an HTTP header',
    ],
    [
      'a prefix with a line end',
      'targets: {}\ncredentials:\n  a: { source: { env: Y }, inject: { header: X, prefix: "a\\r\\nb: " } }\n',
      'printable ASCII',
    ],
    [
      'bearer: false',
      'targets: {}\ncredentials:\n  a: { source: { env: Y }, inject: { bearer: false } }\n',
      'credentials.a.inject.bearer',
    ],
    [
      'a built-in name',
      intent('code_origin: caller, steps: [{ title: a, argv: [a.js] }]', 'run_script'),
      'is the name of a built-in intent',
    ],
    [
      'an operator step the caller chooses',
      intent(
        'inputs: { properties: { s: { type: string } }, required: [s] }, code_origin: operator, steps: [{ title: a, argv: ["${inputs.s}"] }]',
      ),
      'a caller cannot choose what runs',
    ],
    [
      'an operator step of no file',
      intent('code_origin: operator, steps: [{ title: a, argv: [a.js] }]'),
      'has to be one of its files',
    ],
    [
      'a substitution inside an argument',
      intent(
        'inputs: { properties: { s: { type: string } }, required: [s] }, code_origin: caller, steps: [{ title: a, argv: [a.js, "x${inputs.s}"] }]',
      ),
      'has to be the whole argument',
    ],
    [
      'a substitution of the environment',
      intent('code_origin: caller, steps: [{ title: a, argv: [a.js, "${HOME}"] }]'),
      'has to be the whole argument',
    ],
    [
      'a substitution of an undeclared input',
      intent('code_origin: caller, steps: [{ title: a, argv: [a.js, "${inputs.constructor}"] }]'),
      '"inputs" declares no "constructor"',
    ],
    [
      'a substitution of a list',
      intent(
        'inputs: { properties: { s: { type: array, items: { type: string } } }, required: [s] }, code_origin: caller, steps: [{ title: a, argv: [a.js, "${inputs.s}"] }]',
      ),
      'to be an argument',
    ],
    [
      'a substitution that may be absent',
      intent(
        'inputs: { properties: { s: { type: string } } }, code_origin: caller, steps: [{ title: a, argv: [a.js, "${inputs.s}"] }]',
      ),
      'has to be required or have a default',
    ],
    [
      'inputs that are no object',
      intent('inputs: { type: string }, code_origin: caller, steps: [{ title: a, argv: [a.js] }]'),
      'type: object',
    ],
    [
      'inputs open to anything',
      intent('inputs: { additionalProperties: true }, code_origin: caller, steps: [{ title: a, argv: [a.js] }]'),
      '"additionalProperties" can only be false',
    ],
    [
      'an unknown keyword of a schema',
      intent(
        'inputs: { properties: { s: { type: string, maxLen: 3 } } }, code_origin: caller, steps: [{ title: a, argv: [a.js] }]',
      ),
      'not a JSON Schema Writ takes',
    ],
    [
      'a schema from elsewhere',
      intent(
        'inputs: { properties: { s: { "$ref": "https://a.example/s.json" } } }, code_origin: caller, steps: [{ title: a, argv: [a.js] }]',
      ),
      'not a JSON Schema Writ takes',
    ],
    [
      'a pattern that explodes',
      intent(
        'inputs: { properties: { s: { type: string, maxLength: 100, pattern: "^(a+)+$" } } }, code_origin: caller, steps: [{ title: a, argv: [a.js] }]',
      ),
      'must not repeat a group that repeats',
    ],
    [
      'a pattern without a length',
      intent(
        'inputs: { properties: { s: { type: string, pattern: "^a$" } } }, code_origin: caller, steps: [{ title: a, argv: [a.js] }]',
      ),
      'needs a "maxLength"',
    ],
    [
      'a file outside the folder',
      intent('code_origin: operator, files: [../x.js], steps: [{ title: a, argv: [x.js] }]'),
      'empty, "." or ".." part',
    ],
    [
      'a file that is not there',
      intent('code_origin: operator, files: [x.js], steps: [{ title: a, argv: [x.js] }]'),
      '"x.js" does not exist',
    ],
    [
      'a folder as a file',
      intent('code_origin: operator, files: ["."], steps: [{ title: a, argv: [x.js] }]'),
      'empty, "." or ".." part',
    ],
    [
      'an exit code out of range',
      intent('code_origin: caller, steps: [{ title: a, argv: [a.js], success: [256] }]'),
      'steps.0.success.0',
    ],
  ])('refuses %s', (_what, text, message) => {
    const said = refusal(text)
    expect(said).toContain(message)
    expect(said).toMatch(/^catalog\.yaml:\d+:\d+: /)
    expect(said).not.toContain('hunter2')
    expect(said).not.toContain(folder)
  })

  test('takes only the certificates of a ca, and refuses a file that holds a key', () => {
    const [first = ''] = rootCertificates
    writeFileSync(join(folder, 'ca.pem'), `# bundle\n${first}\n`)
    const text = service('url: "https://h.example", ca: ca.pem')
    const catalog = load(text)
    const kept = new X509Certificate(catalog.targets.get('t')?.services[0]?.ca ?? '')
    expect(kept.fingerprint256).toBe(new X509Certificate(first).fingerprint256)
    expect(catalog.targets.get('t')?.services[0]?.ca).not.toContain('bundle')
    expect(catalog.sources).toContain(join(folder, 'ca.pem'))
    const before = entryDigest(catalog, 'target:t')
    writeFileSync(join(folder, 'ca.pem'), rootCertificates[1] ?? '')
    expect(entryDigest(load(text), 'target:t')).not.toBe(before)
    writeFileSync(join(folder, 'ca.pem'), `${first}\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n`)
    expect(refusal(text)).toContain('holds a private key')
    writeFileSync(join(folder, 'ca.pem'), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    expect(refusal(text)).toContain('cannot be read')
    writeFileSync(join(folder, 'ca.pem'), 'hello')
    expect(refusal(text)).toContain('holds no PEM certificate')
  })

  test('a folder, a device and bytes that are not UTF-8 in the place of the catalog are refused', () => {
    expect(() => loadCatalog(folder)).toThrow('is not a regular file')
    expect(() => loadCatalog('/dev/zero')).toThrow('is not a regular file')
    expect(() => loadCatalog(join(folder, 'none.yaml'))).toThrow('does not exist')
    writeFileSync(join(folder, 'bad.yaml'), Buffer.from([0xff, 0xfe]))
    expect(() => loadCatalog(join(folder, 'bad.yaml'))).toThrow('not UTF-8')
    symlinkSync('/dev/zero', join(folder, 'ca.pem'))
    expect(refusal(service('url: "https://h.example", ca: ca.pem'))).toContain('"ca.pem" is not a regular file')
  })

  test('is frozen, and its generation is that of its content, not of its text', () => {
    const text = `targets:\n  t: { ${head} }\n`
    const catalog = load(text)
    expect(Object.isFrozen(catalog) && Object.isFrozen(catalog.targets.get('t')?.limits)).toBe(true)
    expect(() => Object.assign(catalog.targets.get('t') ?? {}, { executor: 'docker' })).toThrow(TypeError)
    expect(load(`# comment\n${text}`).generation).toBe(catalog.generation)
    expect(load(text.replace('about: x', 'about: z')).generation).not.toBe(catalog.generation)
    expect(load(text, limitSettings({ defaults: { wall_s: 1 } })).generation).not.toBe(catalog.generation)
  })

  test('an entry keeps its digest when another one changes', () => {
    const one = load(`targets:\n  a: { ${head} }\n  b: { ${head} }\n`)
    const two = load(`targets:\n  b: { ${head}, labels: { env: production } }\n  a: { ${head} }\n`)
    expect(entryDigest(two, 'target:a')).toBe(entryDigest(one, 'target:a'))
    expect(entryDigest(two, 'target:b')).not.toBe(entryDigest(one, 'target:b'))
  })
})
