# Fills one folder, then makes as many empty files in it as it takes.
import os, sys

folder = sys.argv[1]
size = 0
try:
    with open(f"{folder}/big", "wb", buffering=0) as file:
        while size < 4 << 30:
            size += file.write(b"x" * 65536)
    print("NO LIMIT")
except OSError as error:
    print("bytes:", error.strerror)
os.remove(f"{folder}/big")
count = 0
try:
    while count < 1_000_000:
        os.close(os.open(f"{folder}/n{count}", os.O_CREAT | os.O_WRONLY))
        count += 1
    print("NO LIMIT")
except OSError as error:
    print("files:", error.strerror)
for at in range(count):
    os.remove(f"{folder}/n{at}")
print("whole again:", os.statvfs(folder).f_bfree > 0)
