# Writes what would change the kernel or the host, and reads what would tell of them.
import os

writes = """/x /etc/passwd /etc/hosts /etc/resolv.conf /etc/hostname /usr/bin/x /writ-agent /proc/sysrq-trigger /proc/sys/kernel/core_pattern
/proc/sys/kernel/modprobe /proc/sys/kernel/hostname /proc/sys/vm/overcommit_memory /proc/sys/fs/binfmt_misc/register
/proc/sys/net/ipv4/ip_forward /proc/sys/kernel/randomize_va_space /proc/irq/default_smp_affinity /proc/mtrr /proc/acpi/wakeup
/proc/1/oom_score_adj /proc/1/mem /proc/1/comm /proc/1/clear_refs /proc/1/setgroups /proc/1/uid_map /proc/self/exe /proc/1/exe
/sys/kernel/uevent_helper /sys/kernel/mm/transparent_hugepage/enabled /sys/fs/cgroup/release_agent /sys/fs/cgroup/cgroup.procs
/sys/fs/cgroup/memory/release_agent /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max
/sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/rdma/release_agent /sys/firmware/x /sys/power/state
/sys/class/net/lo/mtu /sys/module/kernel/parameters/panic /dev/x /proc/scsi/x /proc/bus/x /proc/fs/x""".split()
wrote = []
for path in writes:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError:
        continue
    try:
        os.write(fd, b"1")
        wrote.append(path)
    except OSError:
        pass
    os.close(fd)
print("written:", wrote)

reads = """/proc/kcore /proc/kmsg /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats /proc/kallsyms /proc/slabinfo /proc/vmallocinfo
/proc/iomem /proc/ioports /proc/kpagecount /proc/kpageflags /proc/pagetypeinfo /proc/acpi/event /proc/scsi/scsi /proc/asound/cards
/proc/interrupts_secret /proc/1/environ /proc/1/mem /proc/1/maps /proc/1/auxv /proc/1/stack /proc/1/syscall /sys/firmware/dmi/tables/DMI /sys/firmware/acpi/tables/DSDT
/sys/kernel/security/lsm /sys/kernel/debug/x /sys/kernel/notes_secret /etc/shadow /etc/gshadow /root/.profile /var/lib/docker /run/docker.sock /dev/kmsg /dev/mem /dev/port""".split()
read = []
for path in reads:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        text = os.read(fd, 4096)
        os.close(fd)
    except OSError:
        continue
    # Addresses that are all zero tell nothing: so the kernel shows them to who may not see them.
    lines = [line for line in text.split(b"\n")[:-1] if not line.startswith((b"0000000000000000 ", b"  00000000-00000000", b"  0000-0000", b"00000000-00000000"))]
    if path in ("/proc/kallsyms", "/proc/iomem", "/proc/ioports") and not lines:
        continue
    if path in ("/proc/iomem", "/proc/ioports") and all(b"00000000-00000000" in line or b"0000-0000" in line for line in lines):
        continue
    if text:
        read.append(path)
print("read:", read)
try:
    os.kill(1, 0)
    print("init:", os.readlink("/proc/1/exe"))
except OSError as error:
    print("init: refused")
