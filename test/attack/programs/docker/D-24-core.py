# Crashes in every way that leaves a file behind, and looks for one.
import os, resource, signal

try:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("limit raised")
except (OSError, ValueError):
    print("limit kept", resource.getrlimit(resource.RLIMIT_CORE))
os.chdir("/work")
for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGQUIT):
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), number)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(signal.Signals(os.WTERMSIG(status)).name, "with a core" if os.WCOREDUMP(status) else "without a core")
for name in ("nofile",):
    kind = getattr(resource, f"RLIMIT_{name.upper()}")
    soft, hard = resource.getrlimit(kind)
    try:
        resource.setrlimit(kind, (soft, hard + 1 if hard > 0 else resource.RLIM_INFINITY))
        print(name, "raised" if hard > 0 else "had none")
    except (OSError, ValueError):
        print(name, "kept")
found = [os.path.join(folder, file) for top in ("/work", "/tmp", "/out", "/dev/shm") for folder, _, files in os.walk(top) for file in files if file.startswith("core")]
print("files:", found)
