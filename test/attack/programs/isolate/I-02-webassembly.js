console.log(typeof WebAssembly, typeof SharedArrayBuffer, typeof Atomics, typeof WeakRef, typeof FinalizationRegistry)
console.log(['resize', 'transfer', 'transferToFixedLength'].map((name) => typeof ArrayBuffer.prototype[name]).join(' '))
