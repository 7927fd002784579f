#!/usr/bin/env python3
"""A ring that has grown for a bulk transfer gives its memory back when the connection is idle, however its sender sleeps, and grows again.

Twice for each way to wait (read, poll, select, epoll): the sender fills its ring to the biggest class and stays away from its socket: the
memory is there. As soon as it waits for an answer, which does not come yet, the memory goes. Then the answer comes, and all was whole.
Needs root.

    trim_ring_test.py BUILD
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "lib"))

from pods import Node  # noqa: E402
from procs import Failure, read_stats, shared_memory, wait_until  # noqa: E402

ROUNDS = 2
BYTES = 32 << 20
# Bytes of memory for one connection: a ring of the biggest class; the words of a slot and what the smallest rings come to.
GROWN, SMALL = 256 << 10, 64 << 10

# argv: rounds, bytes. Answers when it is told to, by a line of its standard input.
COLLECT = """
import hashlib, socket, sys
s = socket.create_server(("0.0.0.0", 7100)).accept()[0]
for _ in range(int(sys.argv[1])):
    left, digest = int(sys.argv[2]), hashlib.sha256()
    while left:
        data = s.recv(min(left, 1 << 20))
        assert data
        left -= len(data)
        digest.update(data)
    assert sys.stdin.readline()
    s.sendall(digest.digest())
"""
# argv: rounds, bytes, address, how to wait for the answer; it begins to when it is told to.
SEND = """
import hashlib, random, select, socket, sys
s, how = socket.create_connection((sys.argv[3], 7100)), sys.argv[4]
epoll, poll = select.epoll(), select.poll()
epoll.register(s, select.EPOLLIN)
poll.register(s, select.POLLIN)
wait = {"read": lambda: None, "poll": poll.poll, "select": lambda: select.select([s], [], []), "epoll": epoll.poll}[how]
for _ in range(int(sys.argv[1])):
    data = random.randbytes(int(sys.argv[2]))
    for at in range(0, len(data), 1 << 16):
        s.sendall(data[at:at + (1 << 16)])
    print("sent", flush=True)
    assert sys.stdin.readline()
    wait()
    assert s.recv(32, socket.MSG_WAITALL) == hashlib.sha256(data).digest()
    print("whole", flush=True)
"""


class Program:
    """A program that is told to go on by lines of its standard input, a pipe with a name."""

    def __init__(self, node, pod, name, text, *argv, shim):
        path = os.path.join(node.work, f"{name}.pipe")
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR)  # for both ways: nobody waits for the other to open it
        command = ["sh", "-c", 'pipe=$1; shift; exec "$@" <"$pipe"', "sh", path, sys.executable, "-c", text, *argv]
        self.process = pod.start(command, shim=shim)

    def go_on(self):
        os.write(self._pipe, b"\n")

    def await_line(self, count):
        def written():
            if self.process.output().count("\n") < count and not self.process.alive():
                raise Failure(f"the program ended: {self.process.output()[-1500:]}")
            return self.process.output().count("\n") >= count
        wait_until(written, f"line {count} of a program", timeout=30)

    def finish(self):
        status = self.process.wait(timeout=30)
        os.close(self._pipe)
        if status != 0:
            raise Failure(f"exit status {status}: {self.process.output()[-1500:]}")


def trims(node, pod, how):
    stats = os.path.join(node.work, f"{how}.stats")
    shim = {"VSOCKET_UPGRADE_AFTER": "0", "VSOCKET_STATS": stats}
    collector = Program(node, pod, f"collect-{how}", COLLECT, ROUNDS, BYTES, shim=shim)
    collector.process.wait_listening(7100)
    sender = Program(node, pod, f"send-{how}", SEND, ROUNDS, BYTES, pod.ip, how, shim=shim)

    def memory():
        return shared_memory([sender.process.pid])[0]

    for turn in range(ROUNDS):
        sender.await_line(2 * turn + 1)
        if memory() < GROWN:
            raise Failure(f"round {turn}: the ring is not big: {memory()} bytes")
        sender.go_on()
        wait_until(lambda: memory() < SMALL, f"round {turn}: the memory of the ring to go")
        collector.go_on()
        sender.await_line(2 * turn + 2)
    for program in (sender, collector):
        program.finish()
    if read_stats(stats)["ring_tx"] < ROUNDS * BYTES // 2:
        raise Failure(f"the bytes went by TCP: {read_stats(stats)}")


def main(build):
    failed = 0
    with Node(build) as node:
        node.start_agent()
        pod = node.add_pod("both-ends")
        for how in ("read", "poll", "select", "epoll"):
            try:
                trims(node, pod, how)
                print(f"ok   {how}", flush=True)
            except Failure as failure:
                failed += 1
                print(f"FAIL {how}: {failure}", flush=True)
                for process in node.processes:
                    process.kill()
    print("PASS" if not failed else f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
