# Opens a socket of every family, type and protocol of note, and pairs of sockets.
import errno, socket

kinds = {"stream": 1, "dgram": 2, "raw": 3, "rdm": 4, "seqpacket": 5, "packet": 10}
for family in range(0, 64):
    can = []
    for kind, number in kinds.items():
        for protocol in (0, 1, 6, 17, 58, 255, 768):
            try:
                socket.socket(family, number, protocol).close()
                can.append(f"{kind}/{protocol}")
            except OSError:
                pass
    if can:
        print("socket", family, " ".join(can))
    can = []
    for kind, number in kinds.items():
        try:
            for end in socket.socketpair(family, number):
                end.close()
            can.append(kind)
        except OSError:
            pass
    if can:
        print("socketpair", family, " ".join(can))
