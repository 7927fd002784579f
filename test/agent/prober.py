"""A program for a pod or a node: it listens on ports by TCP and UDP, and tries others' when asked.

usage: prober.py PORT...     each line of its input is {"wait": SECONDS, "probes": [[address, port, "TCP" or "UDP"], ...]}, answered by a
line with a list of words: "ok" (an answer came back), "refused", "silent", or an errno's name.
"""

import contextlib
import errno
import json
import os
import selectors
import socket
import sys
import threading
import time

AGAIN_SECONDS = 0.25


def listen(kind, port):
    server = socket.socket(socket.AF_INET6, kind)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("::", port))
    return server


def serve(ports):
    waiting = selectors.DefaultSelector()
    for port in ports:
        stream = listen(socket.SOCK_STREAM, port)
        stream.listen(64)
        waiting.register(stream, selectors.EVENT_READ, True)
        waiting.register(listen(socket.SOCK_DGRAM, port), selectors.EVENT_READ, False)
    while True:
        for key, _ in waiting.select():
            with contextlib.suppress(OSError):
                if key.data:
                    connection = key.fileobj.accept()[0]
                    connection.sendall(b"here")
                    connection.close()
                else:
                    data, peer = key.fileobj.recvfrom(64)
                    key.fileobj.sendto(data, peer)


def word(error):
    if error == errno.ECONNREFUSED:
        return "refused"
    return errno.errorcode.get(error, str(error))


class Probe:
    """One cell. Its answer is set as soon as there is one."""

    def __init__(self, number, address, port, protocol):
        self.number, self.answer, self.stream = number, None, protocol == "TCP"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        error = self.socket.connect_ex((address, port))
        if error not in (0, errno.EINPROGRESS):
            self.answer = word(error)
        self.send()

    def fileno(self):
        return self.socket.fileno()

    def send(self):
        if self.stream or self.answer:
            return
        try:
            self.socket.send(b"probe")
        except OSError as error:
            self.answer = word(error.errno)

    def ready(self):
        try:
            data = self.socket.recv(64)
            self.answer = "ok" if data else "closed"
        except BlockingIOError:
            return
        except OSError as error:
            self.answer = word(error.errno)


def probe(wanted, wait):
    probes = [Probe(number, *cell) for number, cell in enumerate(wanted)]
    end = time.monotonic() + wait
    again = time.monotonic() + AGAIN_SECONDS
    while any(one.answer is None for one in probes) and time.monotonic() < end:
        waiting = selectors.DefaultSelector()
        for one in probes:
            if one.answer is None:
                waiting.register(one, selectors.EVENT_READ)
        for key, _ in waiting.select(max(0, min(again, end) - time.monotonic())):
            key.fileobj.ready()
        waiting.close()
        if time.monotonic() >= again:
            again = time.monotonic() + AGAIN_SECONDS
            for one in probes:
                one.send()
    for one in probes:
        one.socket.close()
    return [one.answer or "silent" for one in probes]


def main():
    threading.Thread(target=serve, args=([int(port) for port in sys.argv[1:]],), daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(probe(request["probes"], request["wait"])), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
