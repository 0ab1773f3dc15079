# Sends the gateway all it can and reads no answer: requests ahead of answers, bodies without an end, heads without an end,
# connections that are opened and given up at once.
import select, socket, struct, sys, time

address = ("127.0.0.1", 3128)
head = b"POST /held/x HTTP/1.1\r\nHost: 127.0.0.1:3128\r\n"
kinds = {
    "ahead": (b"", b"GET /held/x HTTP/1.1\r\nHost: 127.0.0.1:3128\r\n\r\n" * 1500),
    "body": (head + b"Transfer-Encoding: chunked\r\n\r\n", (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 2),
    "long": (head + b"Content-Length: 1000000000000\r\n\r\n", b"x" * 65536),
    "head": (b"GET /held/x HTTP/1.1\r\nHost: a\r\n", b"X-More: " + b"x" * 40 + b"\r\n"),
}
until = time.monotonic() + float(sys.argv[1])
print("begun", flush=True)
open_now = {}


def begin(kind):
    end = socket.create_connection(address)
    end.setblocking(False)
    first, more = kinds[kind]
    open_now[end] = [kind, memoryview(first + more)]


def give_up(end):
    del open_now[end]
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


for at in range(56):
    begin(list(kinds)[at % 4 if at < 16 else 0])
while time.monotonic() < until:
    _, ready, _ = select.select([], list(open_now), [], 0.02)
    for end in ready:
        kind, rest = open_now[end]
        try:
            sent = end.send(rest)
            open_now[end][1] = rest[sent:] if sent < len(rest) else memoryview(kinds[kind][1])
        except OSError:
            give_up(end)
            begin(kind)
    # Given up with two requests under way.
    for _ in range(4):
        with socket.create_connection(address) as end:
            end.sendall(kinds["ahead"][1][:96])
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
for end in list(open_now):
    give_up(end)
# What is asked after that is answered like before.
with socket.create_connection(address, timeout=60) as end:
    end.sendall(b"GET /held/x HTTP/1.1\r\nHost: 127.0.0.1:3128\r\nConnection: close\r\n\r\n")
    print(end.recv(12).decode())
