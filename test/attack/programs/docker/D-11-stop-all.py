# Stops everything at once, the agent too if it can, and leaves it so.
import os, signal, time

print("begun", flush=True)
if os.fork() == 0:
    os.setsid()
    os.kill(-1, signal.SIGSTOP)
    os.kill(1, signal.SIGSTOP)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
