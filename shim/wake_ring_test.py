#!/usr/bin/env python3
"""Wake objects of threads that come and go, and of forked children, with real programs whose connections are on rings and that never spin.

- Two thousand threads, one after the other, each sleeps for a byte; then eight at a time. The descriptors of their process stay as many as
  those threads at once need, and nearly all of them are woken by wake objects, not by TCP.
- A child that was forked from a process with a connection on a ring is rung, and rings, by wake objects on a connection of its own; the
  inherited one works in both.
- A thread whose connection another one closes lives on, with the wake object that it slept on. The memory of the rings is let go of with
  its last connection; the next connection brings it again, while the peer has never let go of it: who sleeps on that is woken, by wake
  objects.

Needs root.

    wake_ring_test.py BUILD
"""

import json
import os
import sys
from functools import partial

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "lib"))

from cases import run_cases  # noqa: E402
from pods import Node  # noqa: E402
from procs import Failure, wait_until  # noqa: E402

THREADS, AT_ONCE, WAVES = 2000, 8, 100
ROUNDS = 20000
SHIM = {"VSOCKET_UPGRADE_AFTER": "0", "VSOCKET_SPIN_US": "0"}

# Echoes by one thread a connection.
ECHO = """
import socket, threading
def serve(s):
    while data := s.recv(64):
        s.sendall(data)
listener = socket.create_server(("0.0.0.0", 7100))
for _ in range(9):
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"""
# argv: address, threads, at once, waves. Says how many descriptors there were when the first had ended, and in the end.
THREADS_COME_AND_GO = """
import os, socket, sys, threading
address, threads, at_once, waves = sys.argv[1], *map(int, sys.argv[2:])
done = []
def round(s):
    s.sendall(b"x")
    done.append(s.recv(64))
def run(count, connections):
    for _ in range(count):
        alive = [threading.Thread(target=round, args=(s,)) for s in connections]
        for thread in alive: thread.start()
        for thread in alive: thread.join()
def descriptors():
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink("/proc/self/fd/" + name))
        except FileNotFoundError:
            pass  # that of the listing
    return len(links), sum("eventfd" in link for link in links)
one = socket.create_connection((address, 7100))
run(200, [one])
print("first", *descriptors(), flush=True)
run(threads, [one])
print("later", *descriptors(), flush=True)
many = [socket.create_connection((address, 7100)) for _ in range(at_once)]
run(waves, many)
print("many", *descriptors(), flush=True)
print("rounds", len(done), done.count(b"x"), flush=True)
"""
# argv: rounds. Its first connection is on a ring when it forks; the child accepts another.
FORKS = """
import os, socket, sys
def serve(s, rounds):
    for _ in range(rounds):
        s.sendall(s.recv(64))
listener = socket.create_server(("0.0.0.0", 7100))
shared, rounds = listener.accept()[0], int(sys.argv[1])
serve(shared, rounds)
child = os.fork()
if child == 0:
    own = listener.accept()[0]
    serve(own, rounds)
    serve(shared, 100)
else:
    print("child", child, flush=True)
    os.waitpid(child, 0)
    serve(shared, 100)
"""
# argv: address, rounds. The connection of the child is another program's, so that each counts for itself.
TALK = """
import socket, sys
s, rounds = socket.create_connection((sys.argv[1], 7100)), int(sys.argv[2])
def talk(rounds):
    for _ in range(rounds):
        s.sendall(b"x")
        assert s.recv(64) == b"x"
talk(rounds)
print("talked", flush=True)
talk(int(input()))
"""
# Echoes, and closes nothing.
HOLD = """
import socket
listener = socket.create_server(("0.0.0.0", 7100))
held = []
for _ in range(2):
    s = listener.accept()[0]
    held.append(s)
    while data := s.recv(64):
        s.sendall(data)
"""
# argv: address, rounds. The first connection is another thread's, that is there until the end.
AGAIN = """
import socket, sys, threading
rounds = int(sys.argv[2])
def talk(s):
    for _ in range(rounds):
        s.sendall(b"x")
        assert s.recv(64) == b"x"
talked, over = threading.Event(), threading.Event()
def first(s):
    talk(s)
    talked.set()
    over.wait()
s = socket.create_connection((sys.argv[1], 7100))
thread = threading.Thread(target=first, args=(s,))
thread.start()
talked.wait()
s.close()
with socket.create_connection((sys.argv[1], 7100)) as s:
    talk(s)
over.set()
thread.join()
"""


def stats_of(path, pid):
    with open(path, encoding="utf-8") as stream:
        found = [line for line in map(json.loads, stream) if line["pid"] == pid]
    if len(found) != 1:
        raise Failure(f"{len(found)} lines of statistics of process {pid}")
    return found[0]


def expect_fast(stats, who, least):
    """While both are awake nobody rings, which is how it is when others want the CPUs; and until the agent's answer is read, some
    milliseconds, the bell is TCP's."""
    if stats["fast_bells"] < least or stats["tcp_bells"] * 4 > stats["fast_bells"]:
        raise Failure(f"{who} rang by wake objects {stats['fast_bells']} times, and by TCP {stats['tcp_bells']} times: {stats}")


def finish(process, what):
    status = process.wait(timeout=60)
    if status != 0:
        raise Failure(f"{what}: exit status {status}: {process.output()[-1500:]}")


def threads_come_and_go(_node, pod, shim):
    server = pod.start([sys.executable, "-c", ECHO], shim=shim).wait_listening(7100)
    client = pod.start([sys.executable, "-c", THREADS_COME_AND_GO, pod.ip, THREADS, AT_ONCE, WAVES], shim=shim)
    finish(client, "the client")
    finish(server, "the server")
    said = {line.split()[0]: [int(word) for word in line.split()[1:]] for line in client.output().splitlines()}
    rounds = 200 + THREADS + AT_ONCE * WAVES
    if said["rounds"] != [rounds, rounds]:
        raise Failure(f"not every thread had its answer: {said}")
    # A thread that was joined may not be quite gone when the next one sleeps: that makes two at a time. Each has an eventfd and a wake
    # object for the connections' memory; a connection is one descriptor more.
    if said["later"][0] > said["first"][0] + 4 or said["later"][1] > 4:
        raise Failure(f"descriptors, and eventfds among them, after {THREADS} threads one by one: {said}")
    if said["many"][0] > said["first"][0] + (2 * 2 + 1) * AT_ONCE or said["many"][1] > 4 + 2 * AT_ONCE:
        raise Failure(f"descriptors, and eventfds among them, after {WAVES} waves of {AT_ONCE} threads: {said}")
    expect_fast(stats_of(shim["VSOCKET_STATS"], server.pid), "the server", rounds // 30)


def a_child_has_wake_objects(node, pod, shim):
    server = pod.start([sys.executable, "-c", FORKS, ROUNDS], shim=shim).wait_listening(7100)
    clients = []
    for place in ("shared", "own"):
        pipe = os.path.join(node.work, f"{place}.pipe")
        os.mkfifo(pipe)
        orders = os.open(pipe, os.O_RDWR)  # by both: nobody waits for the other to open it
        command = ["sh", "-c", 'exec "$0" -c "$1" "$2" "$3" <"$4"', sys.executable, TALK, pod.ip, ROUNDS, pipe]
        clients.append((pod.start(command, shim=shim), orders))
        wait_until(lambda: "talked" in clients[-1][0].output() or not clients[-1][0].alive(), f"the {place} connection's rounds")
    (shared, to_shared), (own, to_own) = clients
    os.write(to_own, b"0\n")
    finish(own, "the client of the child")
    os.write(to_shared, b"200\n")
    finish(shared, "the client of both")
    finish(server, "the server")
    child = int(server.output().split()[1])
    for pid, who in ((own.pid, "the child's client"), (child, "the child"), (server.pid, "the parent")):
        expect_fast(stats_of(shim["VSOCKET_STATS"], pid), who, ROUNDS // 20)


def memory_comes_again(_node, pod, shim):
    server = pod.start([sys.executable, "-c", HOLD], shim=shim).wait_listening(7100)
    client = pod.start([sys.executable, "-c", AGAIN, pod.ip, ROUNDS], shim=shim)
    finish(client, "the client")
    finish(server, "the server")
    for process, who in ((client, "the client"), (server, "the server")):
        expect_fast(stats_of(shim["VSOCKET_STATS"], process.pid), who, ROUNDS // 20)


def main(build):
    with Node(build) as node:
        node.start_agent()
        pod = node.add_pod("both-ends")
        cases = []
        for test in (threads_come_and_go, a_child_has_wake_objects, memory_comes_again):
            shim = {**SHIM, "VSOCKET_STATS": os.path.join(node.work, f"{test.__name__}.stats")}
            cases.append((test.__name__, partial(test, node, pod, shim)))
        return run_cases(node, cases)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
