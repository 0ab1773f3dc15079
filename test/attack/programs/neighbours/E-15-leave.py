# Opens all that another container could be reached by, and stays.
import ctypes, mmap, os, socket, sys, time

kept = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    end = socket.socket(socket.AF_UNIX, kind)
    end.bind(f"\0writ-neighbour-{int(kind)}")
    kept.append(end)
kept[0].listen()
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    end = socket.socket(socket.AF_INET, kind)
    end.bind(("0.0.0.0", 4444))
    kept.append(end)
kept[2].listen()
for folder in ("/work", "/tmp", "/out", "/dev/shm"):
    end = socket.socket(socket.AF_UNIX)
    end.bind(folder + "/neighbour.sock")
    end.listen()
    kept.append(end)
    open(folder + "/neighbour.txt", "w").write("left by the neighbour")
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0x57524954, 4096, 0o1666)
if segment >= 0:
    ctypes.memmove(libc.shmat(segment, None, 0), b"left by the neighbour", 21)
libc.mq_open(b"/neighbour", os.O_CREAT | os.O_RDWR, 0o666, None)
open("/tmp/" + str(os.getpid()), "w").close()
print("ready", flush=True)
time.sleep(120)
