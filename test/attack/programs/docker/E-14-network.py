# Tries to leave by every protocol. There is a loopback device and nothing else.
import errno, os, socket

print("interfaces:", *sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else ["lo"])
routes = [line.split()[0] for line in open("/proc/net/route").read().strip().split("\n")[1:]] if os.path.exists("/proc/net/route") else []
print("routes:", routes)


def attempt(name, family, kind, address):
    try:
        with socket.socket(family, kind) as end:
            end.settimeout(2)
            if kind == socket.SOCK_STREAM:
                end.connect(address)
            else:
                end.sendto(b"x", address)
        print(name, "WENT THROUGH")
    except OSError as error:
        print(name, "refused" if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT) else f"OTHER {error}")


for address in ("1.1.1.1", "10.0.0.1", "172.17.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200", "224.0.0.1", "255.255.255.255"):
    attempt(f"tcp {address}", socket.AF_INET, socket.SOCK_STREAM, (address, 443))
    attempt(f"udp {address}", socket.AF_INET, socket.SOCK_DGRAM, (address, 53))
for address in ("2606:4700:4700::1111", "fd00:ec2::254", "ff02::1"):
    attempt(f"tcp {address}", socket.AF_INET6, socket.SOCK_STREAM, (address, 443))
    attempt(f"udp {address}", socket.AF_INET6, socket.SOCK_DGRAM, (address, 53))
try:
    socket.setdefaulttimeout(2)
    print("dns", socket.getaddrinfo("example.com", 443))
except OSError:
    print("dns refused")
open_ports = []
for port in list(range(1, 1024)) + [2375, 2376, 3128, 4243, 5000, 6443, 8080, 8720, 10250, 10255]:
    with socket.socket() as end:
        end.settimeout(0.2)
        if end.connect_ex(("127.0.0.1", port)) == 0:
            open_ports.append(port)
print("open on loopback:", open_ports)
