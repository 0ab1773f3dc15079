# A file larger than anything, of nothing.
import os

for folder in ("/work", "/tmp", "/out", "/dev/shm"):
    path = f"{folder}/sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 42)
    print(folder, os.stat(path).st_size, os.stat(path).st_blocks)
    if folder != "/out":
        os.remove(path)
with open("/out/kept", "w") as file:
    file.write("kept")
