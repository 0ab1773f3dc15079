# Looks for what E-15-leave has opened in the container next door: every answer has to be that there is nothing.
import ctypes, os, socket

for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_UNIX, kind) as end:
        print("abstract socket", int(kind), end.connect_ex(f"\0writ-neighbour-{int(kind)}") == 0)
with socket.socket() as end:
    end.settimeout(2)
    print("port on loopback", end.connect_ex(("127.0.0.1", 4444)) == 0)
for folder in ("/work", "/tmp", "/out", "/dev/shm"):
    with socket.socket(socket.AF_UNIX) as end:
        print(folder, os.path.exists(folder + "/neighbour.txt"), end.connect_ex(folder + "/neighbour.sock") == 0)
libc = ctypes.CDLL(None, use_errno=True)
print("shared memory", libc.shmget(0x57524954, 4096, 0) >= 0)
print("message queue", libc.mq_open(b"/neighbour", os.O_RDWR) >= 0)
mine = {1, os.getpid(), os.getppid()}
print("processes", sorted({int(name) for name in os.listdir("/proc") if name.isdigit()} - mine))
signalled = []
for pid in range(2, 5000):
    if pid not in mine:
        try:
            os.kill(pid, 0)
            signalled.append(pid)
        except OSError:
            pass
print("signalled", signalled)
