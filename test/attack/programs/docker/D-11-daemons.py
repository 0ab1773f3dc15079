# Starts what would outlive its step: daemons of their own session that ignore every signal that can be ignored, hold the
# streams open, and start each other again. The second step looks for them.
import os, signal, sys, time

if sys.argv[1:] == ["look"]:
    time.sleep(0.3)
    mine = os.getpid()
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in (1, mine)]
    print("left of the step before:", len(left))
    print("file grew:", os.path.exists("/work/tmp/beat") and time.time() - os.path.getmtime("/work/tmp/beat") < 0.25)
    sys.exit(0)


def daemon():
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    while True:
        with open("/work/tmp/beat", "w") as file:
            file.write("x")
        time.sleep(0.05)
        if os.fork() > 0:
            os._exit(0)


for _ in range(8):
    if os.fork() == 0:
        if os.fork() == 0:
            daemon()
        os._exit(0)
time.sleep(0.2)
print("started")
