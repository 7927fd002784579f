#!/usr/bin/env python3
"""Holds many TCP connections open, each of which moved a few bytes both ways and then nothing.

idle_pair.py serve PORT            answers every byte until killed
idle_pair.py hold HOST PORT COUNT  opens COUNT connections, plays a little on each, prints "idle" and sleeps
"""

import selectors
import signal
import socket
import sys

ROUNDS = 20  # round trips on each connection: past every threshold of "worth an upgrade"


def serve(port):
    listener = socket.create_server(("0.0.0.0", port), backlog=4096)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ)
                continue
            data = key.fileobj.recv(4096)
            if data:
                key.fileobj.sendall(data)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def hold(host, port, count):
    connections = [socket.create_connection((host, port)) for _ in range(count)]
    for number in range(ROUNDS):
        for connection in connections:
            connection.sendall(bytes([number]) * 64)
        for connection in connections:
            got = b""
            while len(got) < 64:
                part = connection.recv(64 - len(got))
                if not part:
                    sys.exit("the server closed a connection")
                got += part
            if got != bytes([number]) * 64:
                sys.exit("wrong bytes")
    print("idle", flush=True)
    signal.pause()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        hold(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
