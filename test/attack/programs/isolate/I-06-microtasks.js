console.log('before')
Promise.resolve().then(function again() {
  Promise.resolve().then(again)
})
