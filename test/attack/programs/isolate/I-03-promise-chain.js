console.log('before')
const again = () => Promise.resolve().then(again)
again()
