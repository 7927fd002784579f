#!/usr/bin/env python3
"""A Redis client that trusts nothing: on one connection it counts, writes and reads back until SIGTERM.

usage: checking_client.py HOST PORT NAME

Each turn is INCR, SET of a value never used before, GET of it, sent together. INCR shows a request lost or done twice, GET shows a lost,
changed or misplaced byte. Prints "turns N" now and then, "error SECONDS WHAT" (CLOCK_MONOTONIC) and exit 1 at the first trouble, or
"done N turns, M bytes verified" and exit 0 at SIGTERM.
"""

import random
import signal
import socket
import sys
import time

SIZES = (1, 60, 64, 1000, 4096, 20_000, 70_000)
REPORT_EVERY = 0.1


class Wrong(Exception):
    pass


class Connection:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.buffer = b""

    def send(self, *commands):
        parts = []
        for command in commands:
            parts.append(b"*%d\r\n" % len(command))
            for word in command:
                parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))

    def receive(self, expected):
        """The next bytes must be exactly these."""
        while len(self.buffer) < len(expected):
            part = self.socket.recv(65536)
            if not part:
                raise Wrong("the server closed the connection")
            self.buffer += part
        if self.buffer[: len(expected)] != expected:
            raise Wrong(f"expected {expected[:60]!r}, got {self.buffer[:60]!r}")
        self.buffer = self.buffer[len(expected) :]


def main():
    host, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    chooser = random.Random(name)
    turns = verified = 0
    try:
        connection = Connection(host, port)
        connection.send((b"DEL", b"count:" + name, b"value:" + name))
        connection.socket.settimeout(10)
        connection.buffer = connection.socket.recv(100)[4:]
        reported = time.monotonic()
        while not stop:
            turns += 1
            value = chooser.randbytes(chooser.choice(SIZES))
            connection.send((b"INCR", b"count:" + name), (b"SET", b"value:" + name, value), (b"GET", b"value:" + name))
            connection.receive(b":%d\r\n+OK\r\n$%d\r\n%s\r\n" % (turns, len(value), value))
            verified += 2 * len(value)
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                print(f"turns {turns}", flush=True)
    except (OSError, Wrong) as trouble:
        print(f"error {time.monotonic():.3f} {trouble}", flush=True)
        return 1
    print(f"done {turns} turns, {verified} bytes verified", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
