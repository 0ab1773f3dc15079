const answer = await fetch('http://127.0.0.1:3128/service/')
console.log(answer.status)
for (;;);
