"""Agents that are not the real one: of another version, broken, or hostile. channel/control.h says what the messages are."""

import array
import os
import random
import socket
import struct
import threading

MAGIC, VERSION = 0x56534341, 1
HELLO, UPGRADE = 1, 2
WELCOME, REJECT, GRANT, DENY, WAKE = 64, 65, 66, 67, 68
NOT_THE_VERSION = 4  # channel::Reason


def header(kind, magic=MAGIC, version=VERSION):
    return struct.pack("=IHH", magic, version, kind)


def grant(cookie, region, slot, epoch, side, flags=1):
    return header(GRANT) + struct.pack("=QQIIIIII", cookie, region, slot, epoch, side, 0, flags, 0)


def sealed_memory(size):
    fd = os.memfd_create("not-a-region", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


class FakeAgent:
    """Listens on `path`, and calls `answer(connection, kind, packet)` in a thread for every message. `asked`: one has come."""

    def __init__(self, path, answer):
        self.path, self.answer = path, answer
        self.asked = False
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        os.chmod(path, 0o666)
        self.listener.listen()
        self.lines = []

    def __enter__(self):
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        os.unlink(self.path)

    def _accept(self):
        threads = []
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                break
            self.lines.append(line)
            threads.append(threading.Thread(target=self._serve, args=(line,), daemon=True))
            threads[-1].start()
        for line in self.lines:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in threads:
            thread.join()

    def _serve(self, line):
        with line:
            while True:
                try:
                    packet, fds, _, _ = socket.recv_fds(line, 256, 4)
                except OSError:
                    return
                for fd in fds:
                    os.close(fd)
                if not packet:
                    return
                self.asked = True
                kind = struct.unpack_from("=IHH", packet)[2]
                try:
                    if self.answer(line, kind, packet) == "close":
                        return
                except OSError:
                    return


def send(line, packet, fds=()):
    """Never waits: a shim reads when its program makes a call."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    line.sendmsg([packet], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    for fd in fds:
        os.close(fd)


def cookie_of(packet):
    return struct.unpack_from("=Q", packet, 8)[0]


def answers():
    """By name: what such an agent does with a message."""
    choices = random.Random(7)

    def welcoming(then):
        def answer(line, kind, packet):
            if kind == HELLO:
                send(line, header(WELCOME) + struct.pack("=Q", 1))
            elif kind == UPGRADE:
                return then(line, packet)
            return None

        return answer

    def garbage(line, kind, packet):
        for _ in range(20):
            send(line, choices.randbytes(choices.randrange(1, 300)), [os.open("/dev/null", os.O_RDONLY)] if choices.random() < 0.5 else [])

    def nearly_right(line, kind, packet):
        for _ in range(20):
            kind = choices.choice([WELCOME, GRANT, DENY, WAKE, HELLO, 999])
            send(line, header(kind) + choices.randbytes(choices.choice([0, 8, 16, 48, 120])))

    return {
        "another version": lambda line, *_: send(line, header(REJECT) + struct.pack("=HHHH", NOT_THE_VERSION, 2, 2, 0)) or "close",
        "closes at once": lambda line, kind, packet: "close",
        "says nothing": lambda line, kind, packet: None,
        "garbage": garbage,
        "nearly right": nearly_right,
        "another header": lambda line, kind, packet: send(line, header(WELCOME, version=9) + struct.pack("=Q", 1)),
        "grants nothing": welcoming(lambda line, packet: send(line, grant(cookie_of(packet), 1, 0, 1, 0, 0))),
        "grants what is no memory": welcoming(
            lambda line, packet: send(line, grant(cookie_of(packet), 1, 0, 1, 0), [os.open("/dev/null", os.O_RDWR)])),
        "grants memory that could shrink": welcoming(
            lambda line, packet: send(line, grant(cookie_of(packet), 1, 0, 1, 0), [sealed_memory(4096)])),
        "grants a slot that is none": welcoming(
            lambda line, packet: send(line, grant(cookie_of(packet), 1, 0xFFFFFFFF, 1, 7), [sealed_memory(1 << 20)])),
        "grants many times": welcoming(
            lambda line, packet: [send(line, grant(cookie_of(packet), n, 0, 1, 0), [sealed_memory(4096)]) for n in range(8)] and None),
        "denies for ever": welcoming(lambda line, packet: send(line, header(DENY) + struct.pack("=QHHI", cookie_of(packet), 999, 0, 0))),
        "cuts itself off": welcoming(lambda line, packet: send(line, grant(1, 1, 0, 1, 0)[:5]) or "close"),
    }
