"""An echo server and clients that check every byte, as unmodified programs in pods, for tests that go on talking through a fault."""

import itertools
import os
import subprocess
import sys

from procs import Failure, read_stats, wait_until

PORT = 7100
FORCED = {"VSOCKET_UPGRADE_AFTER": "0"}
SERVER = """
import selectors, socket
listener = socket.create_server(("0.0.0.0", 7100))
waiting = selectors.DefaultSelector()
waiting.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in waiting.select():
        if key.fileobj is listener:
            waiting.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        try:
            data = key.fileobj.recv(65536)
            if data:
                key.fileobj.sendall(data)
        except OSError:
            data = b""
        if not data:
            waiting.unregister(key.fileobj)
            key.fileobj.close()
"""
# Each line of its input is a piece of Python, answered by one line. talk(n): n rounds of random bytes, there and back.
CLIENT = """
import os, resource, socket, sys
s = socket.create_connection((sys.argv[1], 7100), timeout=30)
def talk(rounds, size=1000):
    for _ in range(rounds):
        data = os.urandom(size)
        s.sendall(data)
        back = b""
        while len(back) < size:
            part = s.recv(size - len(back))
            if not part:
                return "end"
            back += part
        if back != data:
            return "wrong bytes"
    return "ok"
print("connected", flush=True)
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except OSError as error:
        print("error", error.errno, flush=True)
"""
_numbers = itertools.count(1)


def serve(pod, shim=FORCED):
    return pod.start([sys.executable, "-c", SERVER], shim=shim).wait_listening(PORT)


class Talker:
    """A client program in a pod. `prefix`: words in front of the program, which get the shim's variables with it."""

    def __init__(self, pod, server_ip, shim=None, prefix=()):
        self.pod = pod
        self.stats_path = os.path.join(pod.node.work, f"stats-{next(_numbers)}")
        settings = FORCED | {"VSOCKET_STATS": self.stats_path} | (shim or {})
        argv = pod.command([*prefix, sys.executable, "-c", CLIENT, server_ip], shim=settings)
        self.popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.popen.stdout.readline() != "connected\n":
            raise Failure(f"the client could not connect: {self.popen.communicate()[1]}")

    def ask(self, piece):
        self.popen.stdin.write(piece + "\n")
        self.popen.stdin.flush()
        answer = self.popen.stdout.readline().strip()
        if not answer:
            raise Failure(f"the client ended: {self.popen.communicate()}")
        return answer

    def talk(self, rounds=20):
        """Raises Failure when a byte is lost or wrong, or the connection is."""
        answer = self.ask(f"talk({rounds})")
        if answer != "ok":
            raise Failure(f"talking gave: {answer}")
        return True

    def row(self):
        """The client's end as the agent sees it, or an empty dict."""
        rows = self.pod.node.agent.connections(pod=self.pod.full_name, local_port=int(self.ask("s.getsockname()[1]")))
        return rows[0] if rows else {}

    def talk_until(self, state, timeout=10.0):
        wait_until(lambda: self.talk() and self.row().get("state") == state, f"{state}: {self.row()}", timeout)

    def finish(self):
        """Ends it. What its statistics say."""
        _, said = self.popen.communicate(timeout=20)
        if self.popen.returncode != 0:
            raise Failure(f"the client ended with {self.popen.returncode}: {said}")
        return read_stats(self.stats_path)

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()
