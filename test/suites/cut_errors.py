#!/usr/bin/env python3
"""What a program sees of a connection that is cut while it sends: on a ring, by a policy, the same as by bare TCP when the peer's end is
destroyed (ECONNRESET once, then EPIPE, the end, no error left over, and the same poll events). Needs root.

    cut_errors.py BUILD
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from pods import Node  # noqa: E402
from procs import read_stats, wait_until  # noqa: E402

DENY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""

PROGRAM = """\
import errno, select, signal, socket, sys
role, address, reads = sys.argv[1:]
if role == "server":
    s = socket.create_server((address, 7000)).accept()[0]
else:
    s = socket.create_connection((address, 7000))
for _ in range(400):
    if role == "client": s.sendall(b"x" * 64)
    s.recv(64, socket.MSG_WAITALL)
    if role == "server": s.sendall(b"x" * 64)
print("warm", flush=True)
seen = []
def note(call, *arguments):
    try: seen.append(f"{call.__name__} {call(*arguments)!r}")
    except OSError as error: seen.append(f"{call.__name__} {errno.errorcode[error.errno]}")
poll = select.poll()
if role == "server":
    try:
        while reads == "yes" and s.recv(65536): pass
    except OSError: pass
    signal.pause()
s.setblocking(False)
poll.register(s, select.POLLOUT)
sent = 0
while True:
    try: sent += s.send(b"y" * 16384)
    except BlockingIOError: poll.poll()
    except OSError as error: seen.append(f"send {errno.errorcode[error.errno]}"); break
    if sent == 16384: print("sending", flush=True)
note(s.send, b"y"); note(s.send, b"y"); note(s.recv, 10)
seen.append(f"SO_ERROR {s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)}")
poll.register(s, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
seen.append(f"poll {[events for _, events in poll.poll(0)]}")
print("seen", *seen, sep="; ", flush=True)
"""


def errors(build, accelerated, reads):
    """What the client saw, in order."""
    with Node(build, agent=accelerated) as node:
        if accelerated:
            node.start_agent()
        server_pod, client_pod = node.add_pod("server"), node.add_pod("client")
        stats_file = os.path.join(node.work, "stats")
        shim = {"VSOCKET_UPGRADE_AFTER": "0", "VSOCKET_STATS": stats_file} if accelerated else False
        program = os.path.join(node.work, "program.py")
        with open(program, "w", encoding="utf-8") as stream:
            stream.write(PROGRAM)
        server = server_pod.start(["/usr/bin/python3", program, "server", server_pod.ip, reads], shim=shim)
        server.wait_listening(7000)
        client = client_pod.start(["/usr/bin/python3", program, "client", server_pod.ip, reads], shim=shim)
        wait_until(lambda: "sending" in client.output(), f"the client to send: {client.output()}")
        if accelerated:
            node.write_cluster("deny.yaml", DENY)
        else:
            server_pod.run(["ss", "-K", "sport", "=", "7000"])
        wait_until(lambda: "seen" in client.output(), "the client to see the cut")
        client.wait(10)
        stats = read_stats(stats_file)
        problem = None if not accelerated or stats["ring_tx"] > 25600 else f"not on a ring: {stats}"
        return client.output().partition("seen; ")[2].strip(), problem


def main(build):
    failed = 0
    for reads in ("yes", "no"):
        bare, _ = errors(build, False, reads)
        cut, problem = errors(build, True, reads)
        good = bare == cut and problem is None and "ECONNRESET" in bare
        print(f"{'ok  ' if good else 'FAIL'} peer reads: {reads}\n  bare: {bare}\n  ring: {cut}", problem or "", flush=True)
        failed += not good
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(sys.argv[1])))
