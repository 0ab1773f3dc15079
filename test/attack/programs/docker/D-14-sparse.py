# Files larger than anything, of nothing: by their size, and by a byte far behind; then one as large as any may be.
import os

for folder in ("/work", "/tmp", "/out", "/dev/shm"):
    path = f"{folder}/sparse"
    with open(path, "wb", buffering=0) as file:
        for name, act in (("size", lambda: file.truncate(1 << 42)), ("byte", lambda: (file.seek(1 << 42), file.write(b"x")))):
            try:
                act()
                print(folder, name, "NO LIMIT")
            except OSError as error:
                print(folder, name, error.strerror)
        file.truncate(48 << 20)
    print(folder, os.stat(path).st_size)
    if folder != "/out":
        os.remove(path)
with open("/out/kept", "w") as file:
    file.write("kept")
