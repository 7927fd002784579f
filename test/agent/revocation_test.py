#!/usr/bin/env python3
"""A policy cuts live ring connections between real programs with the real shim: who is reported for keeping revoked memory, and who not.

- a program that closes the connection that failed is never mentioned, however long it lives on;
- one that is told of the failure and keeps the descriptor open, and one that sleeps and never looks, are reported, and live on;
- with --strict-revocation these are killed, and the first kind is not.

usage: revocation_test.py --build BUILD_FOLDER
"""

import argparse
import json
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from pods import Node  # noqa: E402
from procs import Failure, run, wait_until  # noqa: E402

PORT = 7100
FORCED = {"VSOCKET_UPGRADE_AFTER": "0"}
# Closes what fails, and goes on.
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
            data = key.fileobj.recv(4096)
            if data:
                key.fileobj.sendall(data)
        except OSError:
            data = b""
        if not data:
            waiting.unregister(key.fileobj)
            key.fileobj.close()
"""
# argv: address, what to do when the connection is on a ring: the shim maps the memory in one of the program's own calls.
CLIENT = """
import signal, socket, sys
s = socket.create_connection((sys.argv[1], 7100))
while "vsocket-region" not in open("/proc/self/maps").read():
    s.sendall(b"x" * 1000)
    left = 1000
    while left:
        left -= len(s.recv(left))
print("up", flush=True)
if sys.argv[2] != "sleep":
    try:
        print("end" if s.recv(1) == b"" else "data", flush=True)
    except OSError as error:
        print("error", error.errno, flush=True)
    if sys.argv[2] == "close":
        s.close()
signal.pause()
"""
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
"""


def metric(node, name):
    argv = [*node.agent.prefix, sys.executable, "-c",
            "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9809/metrics', timeout=10).read().decode())"]
    for line in run(argv).stdout.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise Failure(f"no metric {name}")


def reports(node):
    whole_lines = node.agent.process.output().rpartition("\n")[0].splitlines()
    lines = [json.loads(line) for line in whole_lines if line.startswith("{")]
    return [line for line in lines if line["msg"] == "revoked memory still mapped"]


def expect(problems, condition, text):
    if not condition:
        problems.append(text)


def one_round(build, strict):
    flags = ["--log-format", "json", "--revocation-deadline-ms", "1000", *(["--strict-revocation"] if strict else [])]
    problems = []
    with Node(build=build, agent_flags=flags) as node:
        node.start_agent()
        server_pod = node.add_pod("server", labels={"app": "server"})
        client_pod = node.add_pod("client")
        server = server_pod.start([sys.executable, "-c", SERVER], shim=FORCED).wait_listening(PORT)
        clients = {how: client_pod.start([sys.executable, "-c", CLIENT, server_pod.ip, how], shim=FORCED)
                   for how in ("close", "keep", "sleep")}
        for how, client in clients.items():
            wait_until(lambda client=client: "up" in client.output() or not client.alive(), f"the client that will {how}")
        wait_until(lambda: node.agent.ask("status").get("channels", 0) == 3, "three connections on rings")
        node.write_cluster("policy.yaml", POLICY)
        wait_until(lambda: len(reports(node)) == 2, "two reports")
        expect(problems, metric(node, "vsocket_revoked_regions_still_mapped_total") == 2, "not two were counted")
        if strict:
            for how in ("keep", "sleep"):
                wait_until(lambda how=how: not clients[how].alive(), f"the end of the one that will {how}")
                expect(problems, clients[how].wait() == -signal.SIGKILL, f"{how}: ended with {clients[how].wait()}")
            wait_until(lambda: metric(node, "vsocket_revoked_regions") == 0, "all memory to be let go of")
            expect(problems, metric(node, "vsocket_revocation_kills_total") == 2, "not two were killed")
        else:
            wait_until(lambda: metric(node, "vsocket_revoked_regions") == 2, "the third region to be let go of")
            expect(problems, all(client.alive() for client in clients.values()), "a client was killed without --strict-revocation")
        expect(problems, clients["close"].alive(), "the client that closes was killed")
        expect(problems, server.alive(), "the server was killed")
        held = " ".join(report["holders"] for report in reports(node))
        named = {int(word) for word in held.split() if word.isdigit()}
        expect(problems, named == {clients["keep"].pid, clients["sleep"].pid}, f"held by {held}, and not by the two that keep it")
        for report in reports(node):
            expect(problems, report["level"] == "error" and "ingress of default/server" in report["why"], f"not as expected: {report}")
            expect(problems, {report["pod"], report["peer_pod"]} == {server_pod.uid, client_pod.uid}, f"other pods: {report}")
        if problems:
            print(node.agent.process.output()[-3000:], file=sys.stderr)
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build folder with bin/ and lib/")
    options = parser.parse_args()
    problems = []
    for strict in (False, True):
        try:
            problems += [f"strict={strict}: {problem}" for problem in one_round(options.build, strict)]
        except Failure as failure:
            problems.append(f"strict={strict}: {failure}")
    print("PASS revocation" if not problems else f"FAIL revocation: {'; '.join(problems)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
