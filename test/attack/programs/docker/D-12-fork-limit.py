# Starts processes until no more can be had, then threads; the limit is the container's, not the machine's.
import os, signal, threading, time

children = []
try:
    while len(children) < 5000:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
    print("NO LIMIT")
except OSError as error:
    print("refused before 256:", len(children) < 256)
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
gate = threading.Event()
threads = 0
try:
    while threads < 5000:
        threading.Thread(target=gate.wait, daemon=True).start()
        threads += 1
    print("NO LIMIT")
except RuntimeError:
    print("refused before 256:", threads < 256)
gate.set()
