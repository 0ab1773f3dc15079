setTimeout(() => {
  console.log('timer')
  for (;;);
}, 5)
await new Promise(() => {})
