for (const name of ['fs', 'node:fs', './I-18-dynamic-import.js', 'data:text/javascript,1', 'file:///etc/passwd'])
  await import(name).then(
    () => console.log('loaded', name),
    (error) => console.log(error.message),
  )
console.log(Object.keys(import.meta).length, import.meta.url)
