#!/usr/bin/env python3
"""A policy change ends living connections within a second, on rings and on the kernel's path: both ends are told, the event is in the log
of flows, in the metrics and in the agent's log, and a client that was cut cannot come back.

usage: cut_test.py BUILD_FOLDER [CONNECTIONS]
"""

import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from pods import SUBNET, SUBNET6, Node  # noqa: E402
from procs import Failure, run, wait_until  # noqa: E402

FORCED = {"VSOCKET_UPGRADE_AFTER": "0"}
# Echoes; says when, by the clock of both, a connection failed, and how.
SERVER = """
import selectors, socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family, backlog=512)
waiting = selectors.DefaultSelector()
waiting.register(listener, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        if key.fileobj is listener:
            waiting.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        try:
            data = key.fileobj.recv(4096)
            if data:
                key.fileobj.sendall(data)
                continue
            print("end", time.monotonic(), flush=True)
        except OSError as error:
            print("error", error.errno, time.monotonic(), flush=True)
        waiting.unregister(key.fileobj)
        key.fileobj.close()
"""
CLIENT = """
import selectors, socket, sys, time
sockets = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
for round in range(40):
    for s in sockets:
        s.sendall(b"x" * 1000)
        left = 1000
        while left:
            left -= len(s.recv(left))
print("up", flush=True)
waiting = selectors.DefaultSelector()
for s in sockets:
    waiting.register(s, selectors.EVENT_READ)
left = len(sockets)
while left:
    for key, _ in waiting.select():
        try:
            print("data" if key.fileobj.recv(1) else "end", time.monotonic(), flush=True)
        except OSError as error:
            print("error", error.errno, time.monotonic(), flush=True)
        waiting.unregister(key.fileobj)
        left -= 1
# One that comes back before the packet filter is there is cut again.
while True:
    try:
        again = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
    except OSError as error:
        print("kept out", error.errno, flush=True)
        break
    try:
        again.recv(1)
    except OSError as error:
        print("again", error.errno, flush=True)
"""
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
"""
ECONNABORTED, ECONNRESET = 103, 104


def failures(process):
    return [(int(line.split()[1]), float(line.split()[2])) for line in process.output().splitlines() if line.startswith("error ")]


def metrics(node):
    code = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9809/metrics', timeout=10).read().decode())"
    return run([*node.agent.prefix, sys.executable, "-c", code]).stdout


def one(build, family, count):
    """`count` connections on rings, and as many on the kernel's path, from a client of its own each."""
    problems = []
    with Node(build=build, subnet=SUBNET if family == 4 else SUBNET6) as node:
        node.start_agent()
        server_pod = node.add_pod("server", labels={"app": "server"})
        pods = {"ring": node.add_pod("ringed"), "kernel": node.add_pod("bare")}
        servers, clients = {}, {}
        for port, path in ((7100, "ring"), (7101, "kernel")):
            shim = FORCED if path == "ring" else False
            servers[path] = server_pod.start([sys.executable, "-c", SERVER, server_pod.ip, port], shim=shim)
            wait_until(lambda path=path: servers[path].has_said("ready"), "the server")
            clients[path] = pods[path].start([sys.executable, "-c", CLIENT, server_pod.ip, port, count], shim=shim)
        for path, client in clients.items():
            wait_until(lambda client=client: client.has_said("up"), f"the {path} client", 60)
        wait_until(lambda: node.agent.ask("status").get("channels", 0) == count, "all connections on rings", 20)
        follower = subprocess.Popen(
            [node.agent.ctl_program, "--agent-socket", node.agent.socket, "flows", "--follow", "--denied", "-o", "json"],
            stdout=subprocess.PIPE, text=True)
        begun = time.monotonic()
        node.write_cluster("policy.yaml", POLICY)
        everyone = [*servers.items(), *clients.items()]
        for path, process in everyone:
            wait_until(lambda process=process: len(failures(process)) >= count, f"all ends of {path} to be told: {process.output()}", 20)
        worst = {}
        for path, process in everyone:
            who = f"{'server' if process is servers[path] else 'client'} of {path}"
            worst[who] = max(at for _, at in failures(process)) - begun
            allowed = {ECONNRESET} if path == "ring" else {ECONNRESET, ECONNABORTED}
            # The first ones: a client that came back at once, and was cut on the kernel's path, is told of as that.
            codes = {code for code, _ in failures(process)[:count]}
            if not codes <= allowed:
                problems.append(f"the {who} was told {codes}")
            if worst[who] > 1.0 and os.getloadavg()[0] < 3:  # a second, where the machine has one
                problems.append(f"the {who} was told after {worst[who]:.3f} s")
        for path, client in clients.items():
            wait_until(lambda client=client: "kept out 111" in client.output(), f"the {path} client to be kept out", 20)
        more = sum(client.output().count("again ") for client in clients.values())
        said = []
        for line in follower.stdout:  # streams: ends by itself when all is there
            said.append(json.loads(line))
            cut = {path: [one for one in said if one.get("verdict") == "cut" and one["path"] == path] for path in pods}
            denied = [one for one in said if one.get("verdict") == "denied" and one["path"] == "kernel"]
            if len(cut["ring"]) == count and len(cut["kernel"]) == count + more and len(denied) == 2:
                break
        follower.kill()
        follower.communicate()
        for path, events in cut.items():
            for event in events:
                known = more and path == "kernel" or event["source_pod"] == pods[path].full_name
                if not known or event["destination_pod"] != server_pod.full_name:
                    problems.append(f"a cut of other pods: {event}")
                if event["direction"] != "ingress" or event["policy"] != "default/closed" or "no rule matches" not in event["reason"]:
                    problems.append(f"not explained: {event}")
        text = metrics(node)
        for wanted in (f'vsocket_flows_cut_total{{path="ring"}} {count}', f'vsocket_flows_cut_total{{path="kernel"}} {count + more}',
                       'vsocket_flows_denied_total{path="kernel"} 2', 'policy="default/closed"'):
            if wanted not in text:
                problems.append(f"no metric {wanted}")
        log = node.agent.process.output()
        if log.count("channel revoked") != count or log.count("connection cut") != count + more:
            problems.append("not every cut is in the agent's log")
        print(f"IPv{family}, {count} connections a path; last end told, seconds after the file: "
              + ", ".join(f"{who} {seconds:.3f}" for who, seconds in worst.items()))
    return problems


def main():
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    problems = []
    for family in (4, 6):
        try:
            problems += one(sys.argv[1], family, count)
        except Failure as failure:
            problems.append(f"IPv{family}: {failure}")
    print("PASS cut" if not problems else f"FAIL cut: {'; '.join(problems[:10])}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
