# Leaves everything in /out that is no ordinary file, beside one that is.
import os, socket

out = "/out"
open(f"{out}/good.txt", "w").write("good")
for name, target in (("link-passwd", "/etc/passwd"), ("link-proc", "/proc/1/environ"), ("link-up", "../../../../etc/shadow"), ("link-self", "good.txt"), ("link-folder", "/work"), ("link-root", "/"), ("loop", "loop"), ("dangling", "nothing")):
    os.symlink(target, f"{out}/{name}")
try:
    os.link("/writ-agent", f"{out}/hard-outside")
except OSError:
    pass
os.link(f"{out}/good.txt", f"{out}/hard-inside")
os.mkfifo(f"{out}/fifo")
with socket.socket(socket.AF_UNIX) as end:
    end.bind(f"{out}/socket")
os.makedirs(f"{out}/a/b/c")
open(f"{out}/a/b/c/deep.txt", "w").write("deep")
os.mkdir(f"{out}/closed", 0o000)
os.symlink("/etc", f"{out}/a/etc")
open(f"{out}/unreadable", "w").write("u")
os.chmod(f"{out}/unreadable", 0o000)
open(f"{out}/setuid", "w").write("s")
os.chmod(f"{out}/setuid", 0o6755)
print("left")
