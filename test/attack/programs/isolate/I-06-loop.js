console.log('before')
for (;;);
