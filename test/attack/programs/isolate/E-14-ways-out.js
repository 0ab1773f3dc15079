// Every way out that a program of the web or of Node would try: all there is goes to the one port, which says no.
const urls = [
  'http://1.1.1.1/', 'https://example.com/', 'http://169.254.169.254/latest/meta-data/', 'http://[fd00:ec2::254]/',
  'http://localhost:22/', 'http://127.0.0.1:3128@evil.example/', 'file:///etc/passwd', 'data:text/plain,x',
  'blob:null/x', 'ws://127.0.0.1:3128/', 'ftp://127.0.0.1/', 'unix:/var/run/docker.sock', '/vault/', '//evil.example/', '',
]
for (const url of urls) {
  try {
    const answer = await fetch(url, { redirect: 'follow', mode: 'no-cors', keepalive: true })
    console.log(url, answer.status)
  } catch (error) {
    console.log(url, error.name)
  }
}
const names = 'WebSocket EventSource XMLHttpRequest Worker SharedWorker BroadcastChannel MessageChannel RTCPeerConnection WebTransport navigator location importScripts Deno Bun process require Buffer net WebAssembly SharedArrayBuffer'
console.log(names.split(' ').filter((name) => typeof globalThis[name] !== 'undefined'))
