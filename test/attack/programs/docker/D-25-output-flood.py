# Writes to both streams for as long as anybody takes it.
import os, sys

print("begun", flush=True)
while True:
    os.write(1, b"x" * 65536)
    os.write(2, b"y" * 65536)
