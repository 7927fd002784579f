#!/usr/bin/env python3
"""A policy cuts live ring connections between real programs with the real shim: who is reported for keeping revoked memory, and who not.

- a program that is told of the failure is never mentioned, however long it lives on, whether it closes the descriptor or keeps it open,
  by whatever call it is told, and in whichever of two processes that share the connection: it has let go of the memory by then;
- one that sleeps and never looks is reported, and lives on;
- with --strict-revocation it is killed, and the others are not.

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
from talk import FORCED, serve  # noqa: E402

# argv: address, what to do when the connection is on a ring: the shim maps the memory in one of the program's own calls.
CLIENT = """
import os, select, signal, socket, sys, threading
how = sys.argv[2]
s = socket.create_connection((sys.argv[1], 7100))
while "vsocket-region" not in open("/proc/self/maps").read():
    s.sendall(b"x" * 1000)
    left = 1000
    while left:
        left -= len(s.recv(left))
waiter = threading.Thread(target=lambda: (s.recv(1) if how == "threads" else None))
def look():
    try:
        if how == "select":
            select.select([s], [], [])
        if how == "epoll":
            poller = select.epoll()
            poller.register(s, select.EPOLLIN)
            poller.poll()
        return "end" if s.recv(1) == b"" else "data"
    except OSError as error:
        return f"error {error.errno}"
if how == "fork":
    child = os.fork()
if how == "threads":
    threading.excepthook = lambda args: None
    waiter.start()
print("up", flush=True)
if how != "sleep":
    print("told", look(), flush=True)
    if how == "close":
        s.close()
signal.pause()
"""
TOLD = ("close", "keep", "select", "epoll", "threads", "fork")  # how the programs find out that look
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


def holds_memory(pid):
    """By a mapping or by a descriptor."""
    folder = f"/proc/{pid}/fd"
    links = [os.readlink(os.path.join(folder, name)) for name in os.listdir(folder) if os.path.lexists(os.path.join(folder, name))]
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        return "vsocket-region" in maps.read() or any("vsocket-region" in link for link in links)


def family_of(client):
    with open(f"/proc/{client.pid}/task/{client.pid}/children", encoding="utf-8") as children:
        return [client.pid, *map(int, children.read().split())]


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
        server = serve(server_pod)
        clients = {how: client_pod.start([sys.executable, "-c", CLIENT, server_pod.ip, how], shim=FORCED)
                   for how in (*TOLD, "sleep")}
        for how, client in clients.items():
            ups = "up\nup" if how == "fork" else "up"
            wait_until(lambda client=client, ups=ups: ups in client.output() or not client.alive(), f"client {how}")
        wait_until(lambda: node.agent.ask("status").get("channels", 0) == len(clients), "all connections on rings")
        node.write_cluster("policy.yaml", POLICY)
        for how in TOLD:
            wait_until(lambda how=how: clients[how].output().count("told") == (2 if how == "fork" else 1), f"client {how} to be told")
            expect(problems, how == "threads" or "told error 104" in clients[how].output(), f"{how}: {clients[how].output()}")
            for pid in family_of(clients[how]):
                wait_until(lambda pid=pid: not holds_memory(pid), f"{how}: process {pid}, which was told, to let go of the memory")
        wait_until(lambda: len(reports(node)) == 1, "a report")
        if strict:
            wait_until(lambda: not clients["sleep"].alive(), "the end of the one that sleeps")
            expect(problems, clients["sleep"].wait() == -signal.SIGKILL, f"the sleeper ended with {clients['sleep'].wait()}")
        else:
            expect(problems, clients["sleep"].alive() and holds_memory(clients["sleep"].pid), "the sleeper does not hold the memory")
        wait_until(lambda: metric(node, "vsocket_revoked_regions") == (0 if strict else 1), "all other memory to be let go of")
        expect(problems, metric(node, "vsocket_revocation_kills_total") == (1 if strict else 0), "wrong number of killed processes")
        expect(problems, metric(node, "vsocket_revoked_regions_still_mapped_total") == 1, "not one was counted")
        for how in TOLD:
            expect(problems, clients[how].alive() and (how != "fork" or len(family_of(clients[how])) == 2), f"client {how} was killed")
        expect(problems, server.alive(), "the server was killed")
        held = " ".join(report["holders"] for report in reports(node))
        named = {int(word) for word in held.split() if word.isdigit()}
        expect(problems, named == {clients["sleep"].pid}, f"held by {held}, and not by the one that sleeps")
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
