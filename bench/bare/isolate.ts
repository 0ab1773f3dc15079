import ivm from 'isolated-vm'

/** The least a sandbox of isolated-vm can be: a fresh isolate for each text, no prelude, no limits of the kernel's. */
process.on('message', (text: string) => {
  void answer(text)
})

async function answer(text: string): Promise<void> {
  const isolate = new ivm.Isolate({ memoryLimit: 64 })
  const context = await isolate.createContext()
  let said = ''
  await context.evalClosure(
    'globalThis.console = { log: (text) => $0(String(text)) }',
    [
      new ivm.Callback((given: unknown) => {
        said = String(given)
      }),
    ],
    {},
  )
  const script = await isolate.compileScript(text)
  await script.run(context)
  isolate.dispose()
  process.send?.(said)
}
