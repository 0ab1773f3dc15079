const attempts = [
  () => ({}).constructor.constructor('return process')(),
  () => Function('return this.process')(),
  () => (0, eval)('require'),
  () => console.log.constructor('return process')(),
  () => writ.readText.constructor('return globalThis.process')(),
  () => fetch.constructor('return module')(),
  () => (async () => {}).constructor('return process')(),
  () => (function* () {}).constructor('return process')().next().value,
  () => setTimeout.constructor.constructor('return require("fs")')(),
  () => Reflect.getPrototypeOf(writ).constructor.constructor('return process.env')(),
  () => writ.env.constructor.constructor('return process.env')(),
  () => crypto.randomUUID.constructor('return process')(),
]
for (const attempt of attempts) {
  try {
    console.log(String(await attempt()))
  } catch (error) {
    console.log(error.name)
  }
}
