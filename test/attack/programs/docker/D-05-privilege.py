# Looks for more privilege than a step has: capabilities, setuid programs of the image and its own, other users.
import os, shutil, stat, subprocess

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
for name in ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"):
    print(name, " ".join(status.get(name, "?").split()))

programs = []
for folder, _, files in os.walk("/usr"):
    for file in files:
        path = os.path.join(folder, file)
        try:
            mode = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISREG(mode.st_mode) and mode.st_mode & (stat.S_ISUID | stat.S_ISGID):
            programs.append(path)
gained = []
for program in programs:
    try:
        ran = subprocess.Popen([program, "--help"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            lines = open(f"/proc/{ran.pid}/status").read().split("\n")
            gained += [line for line in lines if line.startswith("Uid") and line.split()[1:] != ["65532"] * 4]
        except OSError:
            pass
        ran.kill()
        ran.wait()
    except OSError:
        pass
print("gained by setuid programs of the image:", gained)

mine = "/work/tmp/id" if os.path.isdir("/work/tmp") else "/work/id"
shutil.copy("/usr/bin/id", mine)
os.chmod(mine, 0o6755)
print("own setuid program:", subprocess.run([mine, "-u"], capture_output=True, text=True).stdout.strip())
for name, what in (
    ("setuid", lambda: os.setuid(0)),
    ("setgid", lambda: os.setgid(0)),
    ("setgroups", lambda: os.setgroups([0])),
    ("setresuid", lambda: os.setresuid(0, 0, 0)),
    ("chown", lambda: os.chown(mine, 0, 0)),
    ("nice", lambda: os.nice(-5)),
    ("fifo scheduling", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
    ("file capability", lambda: os.setxattr(mine, "security.capability", bytes.fromhex("0100000201000000000000000000000000000000"))),
):
    try:
        what()
        print(name, "WENT THROUGH")
    except OSError as error:
        print(name, "refused")
