# Takes memory where a process is not charged for it as its own: shared maps, sealed files in memory, pipes, message queues.
import mmap, os

print("begun", flush=True)
held = []
while True:
    fd = os.memfd_create("x")
    os.ftruncate(fd, 8 << 20)
    page = mmap.mmap(fd, 8 << 20)
    for at in range(0, 8 << 20, 4096):
        page[at] = 1
    held.append((fd, page))
    if len(held) % 8 == 0:
        for _ in range(64):
            try:
                reader, writer = os.pipe()
                os.set_blocking(writer, False)
                os.write(writer, b"x" * 65536)
                held.append((reader, writer))
            except OSError:
                break
