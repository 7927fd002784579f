#!/usr/bin/env python3
"""A pod that is isolated for egress and a Service: the pod's packet filter sees the Service's address, and lets it through when every
backend is allowed. The node translates as kube-proxy does (nftables DNAT).

usage: service_test.py BUILD_FOLDER
"""

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from matrix_scenarios import policy, pods, tcp  # noqa: E402
from pods import Node  # noqa: E402
from procs import Failure, run, wait_until  # noqa: E402

VIP = "10.96.0.10"
SERVER = """
import socket
listener = socket.create_server(("0.0.0.0", 8080), backlog=16)
held = []
while True:
    held.append(listener.accept()[0])
    held[-1].sendall(b"here")
"""
# Each line of its input is an attempt; "hold" keeps the connection and tells how it ended.
TRY = """
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
    s.settimeout(60)
    print("got", s.recv(4).decode(), flush=True)
    if len(sys.argv) > 3:
        print("ended", s.recv(4), flush=True)
except OSError as error:
    print("error", error.errno, flush=True)
"""


def objects(backends):
    meta = {"namespace": "default"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta | {"name": "api"},
         "spec": {"clusterIP": VIP, "clusterIPs": [VIP], "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": meta | {"name": "api-1", "labels": {"kubernetes.io/service-name": "api"}},
         "endpoints": [{"addresses": [one.ip], "conditions": {"ready": True}} for one in backends],
         "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]},
    ]


class World:
    def __init__(self, node):
        self.node, self.changes, self.problems = node, 0, []
        self.client = node.add_pod("client")
        self.first = node.add_pod("first", labels={"app": "api", "colour": "blue"})
        self.second = node.add_pod("second", labels={"app": "api", "colour": "green"}, annotated=False)
        for pod in (self.first, self.second):
            pod.start([sys.executable, "-c", SERVER]).wait_listening(8080)

    def translate_to(self, pod):
        rules = (f"table ip proxy {{}}\ndelete table ip proxy\ntable ip proxy {{\n chain in {{ type nat hook prerouting priority dstnat; "
                 f"ip daddr {VIP} tcp dport 80 dnat to {pod.ip}:8080; }}\n chain out {{ type nat hook postrouting priority srcnat; "
                 f"ct status dnat masquerade; }}\n}}\n")
        run(["nsenter", f"--net=/run/netns/{self.node.netns}", "nft", "-f", "-"], input=rules)

    def apply(self, backends, policies):
        self.changes += 1
        before = self.node.agent.process.output().count("policy in force")
        items = [*objects(backends), *policies, policy(f"change-{self.changes}", "nobody")]
        self.node.write_cluster("rest.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        wait_until(lambda: self.node.agent.process.output().count("policy in force") > before, "the policies to be in force", 30)

    def expect(self, what, address, port, wanted):
        said = self.client.run([sys.executable, "-c", TRY, address, port]).stdout.strip()
        if said != wanted:
            self.problems.append(f"{what}: {address}:{port} said {said!r}, not {wanted!r}")

    def conditions(self):
        return [one for one in self.node.agent.ask("status")["conditions"] if one["type"] == "ServicePartlyAllowed"]


def out(*peers):
    return [policy("out", "default", {"app": "client"}, policyTypes=["Egress"], egress=[{"to": list(peers), "ports": [tcp(8080)]}])]


def main():
    with Node(build=sys.argv[1]) as node:
        node.start_agent()
        world = World(node)
        world.translate_to(world.first)
        both = [world.first, world.second]
        world.apply(both, [])
        world.expect("no policy", VIP, 80, "got here")
        world.apply(both, out(pods(app="api")))
        world.expect("every backend allowed", VIP, 80, "got here")
        world.expect("every backend allowed", world.first.ip, 8080, "got here")
        world.expect("another port of the Service", VIP, 81, "error 111")
        held = world.client.start([sys.executable, "-c", TRY, VIP, 80, "hold"])
        wait_until(lambda: held.has_said("got here"), "a connection to the Service")
        world.apply(both, out(pods(app="api"), pods(app="other")))
        if "ended" in held.output() or "error" in held.output():
            world.problems.append("a change that still allows the Service cut its connection")
        world.apply([world.first], out(pods(colour="blue")))
        world.expect("the only backend allowed", VIP, 80, "got here")
        world.apply(both, out(pods(colour="blue")))
        world.expect("one of two backends allowed", VIP, 80, "error 111")
        world.expect("one of two backends allowed", world.first.ip, 8080, "got here")
        said = world.conditions()
        if len(said) != 1 or said[0]["subject"] != "pod default/client" or world.second.ip not in said[0]["what"]:
            world.problems.append(f"the condition says {said}")
        wait_until(lambda: "error 103" in held.output(), f"the connection to the Service to be cut: {held.output()}")
        world.apply(both, out({"ipBlock": {"cidr": "10.96.0.0/16"}}))
        world.expect("a rule that means the Service's address, not its backends", VIP, 80, "error 111")
        flows = [json.loads(line) for line in node.agent.ctl("flows", "--denied").stdout.splitlines()]
        denied = [one for one in flows if one["verdict"] == "denied" and one["destination_ip"] == VIP and one["destination_port"] == 80]
        if not denied or "of Service default/api" not in denied[-1]["reason"]:
            world.problems.append(f"the refusal is not explained: {denied}")
        if world.conditions():
            world.problems.append("the condition stays")
        problems = world.problems
    print("PASS service" if not problems else f"FAIL service: {'; '.join(problems)}")
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"FAIL service: {failure}")
