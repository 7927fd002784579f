#!/usr/bin/env python3
"""How long it takes from a NetworkPolicy's appearance at a real API server until live ring connections are cut.

usage: apply_to_cut.py [--build BUILD_FOLDER] [--rounds 100] [--connections 1,100,1000] [--from kubectl,request] [--out FILE]

In each round all connections are on rings between two pods; a policy that forbids them comes, and the round is over when the program has
been told of the last reset. Two figures a round:

- `kubectl`: from the start of `kubectl apply` to the last reset: what a person waits, the start of kubectl included;
- `request`: from the moment the policy's request is sent on a connection that is open already, to the last reset.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "agent"), os.path.join(HERE, "..", "lib")]

from cluster_objects import deny_all  # noqa: E402
from control_plane import binaries  # noqa: E402
from kube_node import kube_node  # noqa: E402
from procs import Failure, wait_until  # noqa: E402
from talk import FORCED, serve  # noqa: E402

# "connect N": that many connections, each with a byte there and back. "wait": the times of the first and the last reset.
CLIENT = """
import select, socket, sys, time
held = []
def talk(s):
    s.sendall(b"x")
    s.recv(1)
def connect():
    # A verdict is there before the packet filter follows it.
    for _ in range(1000):
        try:
            return socket.create_connection((sys.argv[1], 7100), timeout=30)
        except ConnectionRefusedError:
            time.sleep(0.01)
    sys.exit("no way to the server")
for line in sys.stdin:
    words = line.split()
    if words[0] == "connect":
        held = [connect() for _ in range(int(words[1]))]
        for s in held:
            talk(s)
        print("connected", flush=True)
    if words[0] == "talk":
        for s in held:
            talk(s)
        print("talked", flush=True)
    if words[0] == "wait":
        poller = select.epoll()
        for s in held:
            poller.register(s, select.EPOLLIN)
        print("waiting", flush=True)
        by_fd, times = {s.fileno(): s for s in held}, []
        while by_fd:
            for fd, _ in poller.poll():
                if fd in by_fd:
                    try:
                        end = by_fd[fd].recv(1)
                    except ConnectionResetError:
                        times.append(time.monotonic_ns())
                        by_fd.pop(fd)
        for s in held:
            s.close()
        held = []
        print(times[0], times[-1], flush=True)
"""
# "put" and "delete" one policy over one connection; answers with the time just before the request is sent.
REQUESTER = """
import http.client, json, ssl, sys, time
ca, cert, key, body = sys.argv[1:5]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(cert, key)
api = http.client.HTTPSConnection("127.0.0.1", 6443, context=context)
path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
def ask(word):
    if word == "put":
        api.request("POST", path, body, {"Content-Type": "application/json"})
    else:
        api.request("DELETE", path + "/closed")
    answer = api.getresponse()
    text = answer.read()
    assert answer.status in (200, 201), text
for line in sys.stdin:
    while True:
        if api.sock is None:
            api.connect()
        sent = time.monotonic_ns()
        try:
            ask(line.strip())
            break
        except (http.client.RemoteDisconnected, ConnectionError):
            api.close()  # it was idle for too long
    print(sent, flush=True)
"""


class Program:
    """Answers a line with a line."""

    def __init__(self, argv):
        self.popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, line):
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def hear(self):
        line = self.popen.stdout.readline()
        if not line:
            raise Failure(f"a program of the measurement ended with {self.popen.wait()}")
        return line.strip()

    def ask(self, line):
        self.tell(line)
        return self.hear()

    def close(self):
        self.popen.kill()
        self.popen.wait()


def allowed(node):
    return node.agent.ask("policy", "trace", "client", "server:7100")["allowed"]


def measure(node, client, requester, connections, rounds, how):
    taken = []
    for _ in range(rounds):
        wait_until(lambda: allowed(node), "the way to be open", 30)
        upgraded = node.agent.ask("status")["upgrades"] + connections
        client.ask(f"connect {connections}")
        wait_until(lambda: node.agent.ask("status")["upgrades"] == upgraded, "all to have a channel", 60)
        client.ask("talk")  # and now both directions of each are on its ring
        client.ask("talk")
        client.ask("wait")
        if how == "kubectl":
            began = time.monotonic_ns()
            node.plane.apply(deny_all("closed", app="server"))
        else:
            began = int(requester.ask("put"))
        _, last = map(int, client.hear().split())
        taken.append((last - began) / 1e6)
        requester.ask("delete")
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build folder with bin/ and lib/")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--connections", default="1,100,1000")
    parser.add_argument("--from", dest="hows", default="kubectl,request", help="the figures that are wanted")
    parser.add_argument("--out", help="a file for the figures as JSON")
    options = parser.parse_args()
    binaries()
    rows = []
    # Channels of earlier rounds are given back later than the next round begins.
    with kube_node(options.build, ["--quota-channels=1000000", "--quota-bytes=1000000000000"]) as node:
        server, client_pod = node.add_pod("server", labels={"app": "server"}), node.add_pod("client")
        wait_until(lambda: allowed(node), "both pods to be known", 30)
        serve(server)
        client = Program(client_pod.command([sys.executable, "-c", CLIENT, server.ip], shim=FORCED))
        plane = node.plane
        requester = Program([*node.agent.prefix, sys.executable, "-c", REQUESTER, plane.server_ca, *plane.admin,
                             json.dumps(deny_all("closed", app="server"))])
        try:
            for connections in map(int, options.connections.split(",")):
                for how in options.hows.split(","):
                    taken = measure(node, client, requester, connections, options.rounds, how)
                    row = {"connections": connections, "from": how, "rounds": len(taken), "median_ms": round(statistics.median(taken), 1),
                           "worst_ms": round(max(taken), 1)}
                    rows.append(row)
                    print(json.dumps(row), flush=True)
        finally:
            client.close()
            requester.close()
    if options.out:
        with open(options.out, "w", encoding="utf-8") as stream:
            json.dump(rows, stream, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
