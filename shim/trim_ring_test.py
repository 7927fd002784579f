#!/usr/bin/env python3
"""A ring that has grown for a bulk transfer gives its memory back when the connection is idle, however its sender sleeps, and grows again.

Twice for each way to wait (read, poll, select, epoll): the sender fills its ring to the biggest class and stays away from its socket: the
memory is there. As soon as it waits for an answer, which does not come yet, the memory goes. Then the answer comes, and all was whole.
Needs root.

    trim_ring_test.py BUILD
"""

import os
import sys
from functools import partial

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "lib"))

from cases import run_cases  # noqa: E402
from pods import Node  # noqa: E402
from procs import Failure, read_stats, shared_memory, wait_until  # noqa: E402

ROUNDS = 2
BYTES, MOST_SENDS = 8 << 20, 20
# Bytes of memory for one connection: a ring of the biggest class; the words of a slot and what the smallest rings come to.
GROWN, SMALL = 256 << 10, 64 << 10

# Reads what comes; a line of standard input makes it say what all of it was.
COLLECT = """
import hashlib, select, socket, sys
s = socket.create_server(("0.0.0.0", 7100)).accept()[0]
digest = hashlib.sha256()
while True:
    ready = select.select([s, sys.stdin], [], [])[0]
    if s in ready:
        data = s.recv(1 << 20)
        if not data:
            break
        digest.update(data)
    elif sys.stdin.readline():
        s.sendall(digest.digest())
"""
# argv: bytes, address, how to wait. Does what the lines of standard input say: sends so much, or waits for the digest of all of it.
SEND = """
import hashlib, random, select, socket, sys
s, how = socket.create_connection((sys.argv[2], 7100)), sys.argv[3]
epoll, poll = select.epoll(), select.poll()
epoll.register(s, select.EPOLLIN)
poll.register(s, select.POLLIN)
wait = {"read": lambda: None, "poll": poll.poll, "select": lambda: select.select([s], [], []), "epoll": epoll.poll}[how]
digest = hashlib.sha256()
while (line := sys.stdin.readline()) != "end\\n":
    if line == "send\\n":
        data = random.randbytes(int(sys.argv[1]))
        for at in range(0, len(data), 1 << 16):
            s.sendall(data[at:at + (1 << 16)])
        digest.update(data)
    else:
        wait()
        assert s.recv(32, socket.MSG_WAITALL) == digest.digest()
    print("done", flush=True)
"""


class Program:
    """A program that is told to go on by lines of its standard input, a pipe with a name."""

    def __init__(self, node, pod, name, text, *argv, shim):
        path = os.path.join(node.work, f"{name}.pipe")
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR)  # for both ways: nobody waits for the other to open it
        self._orders = 0
        command = ["sh", "-c", 'pipe=$1; shift; exec "$@" <"$pipe"', "sh", path, sys.executable, "-c", text, *argv]
        self.process = pod.start(command, shim=shim)

    def tell(self, order):
        os.write(self._pipe, f"{order}\n".encode())
        self._orders += 1

    def await_done(self):
        """Until all that it was told is done."""
        def done():
            if self.process.output().count("done\n") < self._orders and not self.process.alive():
                raise Failure(f"the program ended: {self.process.output()[-1500:]}")
            return self.process.output().count("done\n") >= self._orders
        wait_until(done, "a program to do as it was told", timeout=30)

    def finish(self):
        status = self.process.wait(timeout=30)
        os.close(self._pipe)
        if status != 0:
            raise Failure(f"exit status {status}: {self.process.output()[-1500:]}")


def trims(node, pod, how):
    stats = os.path.join(node.work, f"{how}.stats")
    shim = {"VSOCKET_UPGRADE_AFTER": "0", "VSOCKET_STATS": stats}
    collector = Program(node, pod, f"collect-{how}", COLLECT, shim=shim)
    collector.process.wait_listening(7100)
    sender = Program(node, pod, f"send-{how}", SEND, BYTES, pod.ip, how, shim=shim)

    def memory():
        return shared_memory([sender.process.pid])[0]

    for turn in range(ROUNDS):
        for _ in range(MOST_SENDS):  # the first may be over before the agent has answered
            sender.tell("send")
            sender.await_done()
            if memory() >= GROWN:
                break
        else:
            raise Failure(f"round {turn}: the ring is not big: {memory()} bytes")
        sender.tell("wait")
        wait_until(lambda: memory() < SMALL, f"round {turn}: the memory of the ring to go")
        collector.tell("answer")
        sender.await_done()
    sender.tell("end")
    for program in (sender, collector):
        program.finish()
    if read_stats(stats)["ring_tx"] < ROUNDS * BYTES // 2:
        raise Failure(f"the bytes went by TCP: {read_stats(stats)}")


def main(build):
    with Node(build) as node:
        node.start_agent()
        pod = node.add_pod("both-ends")
        return run_cases(node, ((how, partial(trims, node, pod, how)) for how in ("read", "poll", "select", "epoll")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
