#!/usr/bin/env python3
"""Every pod tries every other, the node and itself, on every port, by TCP and UDP, IPv4 and IPv6, before and after each change of policies:
what gets through is what the policies say, as a slow evaluator of the test reads them and as `vsocketctl policy trace` says.

Pods are network namespaces behind the real CNI chain (bridge, host-local, portmap, vsocket-cni); one of them is not annotated, and its own
side is nobody's to enforce. SCTP is tried when the kernel has it.

usage: matrix_test.py BUILD_FOLDER
"""

import concurrent.futures
import json
import os
import re
import socket
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import slow_policy  # noqa: E402
from matrix_scenarios import NAMESPACES, SCENARIOS, policy  # noqa: E402
from pods import SUBNET, SUBNET6, Node  # noqa: E402
from procs import Failure, wait_until  # noqa: E402

PORTS = (53, 80, 8080)
PROTOCOLS = ("TCP", "UDP")
# What must not come has so long to come; what must come and has not is asked for once more, and longer.
SILENCE_SECONDS, PATIENCE_SECONDS = 1.0, 10.0


class Prober:
    def __init__(self, name, prefix):
        self.name, self.prefix = name, prefix
        argv = [*prefix, sys.executable, os.path.join(HERE, "prober.py"), *map(str, PORTS)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise Failure(f"the prober of {name} did not start")

    def ask(self, probes, wait):
        self.process.stdin.write(json.dumps({"probes": probes, "wait": wait}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.communicate()


class Matrix:
    def __init__(self, node):
        self.node = node
        self.pods = [
            node.add_pod("web", "shop", {"app": "web"}, {"http": 80}),
            node.add_pod("api", "shop", {"app": "api", "tier": "back"}, {"http": 8080, "dns": (53, "UDP")}),
            node.add_pod("db", "data", {"app": "db"}, {"http": 80}),
            node.add_pod("plain", "data", {"app": "plain"}, {"http": 8080}, annotated=False),
        ]
        node.write_cluster("namespaces.yaml", "\n---\n".join(
            json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
            for name, labels in NAMESPACES.items()))
        self.bridge = [SUBNET.replace(".0/24", ".1"), SUBNET6.replace("::/64", "::1")]
        self.probers = {pod.name: Prober(pod.name, pod.prefix()) for pod in self.pods}
        self.probers["node"] = Prober("node", ["nsenter", f"--net=/run/netns/{node.netns}"])
        # An address whose uniqueness is still being found out is no source: a datagram would go out, and be answered, by link-local ones.
        for prober in self.probers.values():
            wait_until(lambda prefix=prober.prefix: not subprocess.check_output([*prefix, "ip", "-6", "-o", "addr", "show", "tentative"]),
                       f"the addresses of {prober.name}")
        self.namespaces = {name: labels | {"kubernetes.io/metadata.name": name} for name, labels in NAMESPACES.items()}
        self.cells_tried = self.traces = self.changes = 0

    def close(self):
        for prober in self.probers.values():
            prober.close()

    def cells(self, source):
        """(source pod or None, destination pod or None, source address, destination address, port, protocol)"""
        for family in (0, 1):
            here = source.ips[family] if source is not None else self.bridge[family]
            for destination in self.pods:
                for port in PORTS:
                    for protocol in PROTOCOLS:
                        yield source, destination, here, destination.ips[family], port, protocol
            if source is not None:
                for port in PORTS:
                    yield source, None, here, self.bridge[family], port, "TCP"
                loopback = ("127.0.0.1", "::1")[family]
                yield source, source, loopback, loopback, 80, "TCP"

    def expected(self, policies, cell):
        """Egress and ingress, as the policies have it."""
        source, destination, here, there, port, protocol = cell
        if source is destination:
            return True, True
        egress = source is None or slow_policy.allows(
            policies, "egress", source, destination, there, destination, port, protocol, self.namespaces)
        ingress = destination is None or source is None or slow_policy.allows(
            policies, "ingress", destination, source, here, destination, port, protocol, self.namespaces)
        return egress, ingress

    def gets_through(self, policies, cell):
        egress, ingress = self.expected(policies, cell)
        source, destination = cell[:2]
        enforced = [pod is not None and pod.name != "plain" for pod in (source, destination)]
        return (egress or not enforced[0]) and (ingress or not enforced[1])

    def try_all(self, policies):
        """Problems, in words."""
        def one(name):
            source = next((pod for pod in self.pods if pod.name == name), None)
            cells = list(self.cells(source))
            probes = [[cell[3], cell[4], cell[5]] for cell in cells]
            words = self.probers[name].ask(probes, SILENCE_SECONDS)
            late = [i for i, cell in enumerate(cells) if words[i] != "ok" and self.gets_through(policies, cell)]
            if late:
                for i, again in zip(late, self.probers[name].ask([probes[i] for i in late], PATIENCE_SECONDS)):
                    words[i] = again if words[i] == "silent" else words[i]
            self.cells_tried += len(cells)
            wanted = [self.gets_through(policies, cell) for cell in cells]
            return [f"{name} -> {probe[0]}:{probe[1]}/{probe[2]}: {said}, but should {'' if passes else 'not '}pass"
                    for passes, probe, said in zip(wanted, probes, words) if (said == "ok") != passes]

        with concurrent.futures.ThreadPoolExecutor(len(self.probers)) as pool:
            return [problem for problems in pool.map(one, self.probers) for problem in problems]

    def trace_all(self, policies):
        """The agent's verdict of every pair, port and protocol against the slow one. IPv4, as trace picks the first family."""
        def one(cell):
            source, destination, _, _, port, protocol = cell
            said = self.node.agent.ask("policy", "trace", source.full_name, f"{destination.full_name}:{port}/{protocol.lower()}")
            egress, ingress = self.expected(policies, cell)
            if (said["egress"]["allowed"], said["ingress"]["allowed"]) != (egress, ingress):
                return f"trace {source.name} -> {destination.name}:{port}/{protocol} says {said}, the slow evaluator {egress, ingress}"
            for side, allowed in (("egress", egress), ("ingress", ingress)):
                by_rule = said[side]["isolated_by"] and allowed and source is not destination
                if by_rule and not (said[side]["policy"] and said[side]["rule_text"]):
                    return f"trace {source.name} -> {destination.name}:{port}/{protocol} does not name the {side} rule: {said}"
            return None

        cells = [cell for pod in self.pods for cell in self.cells(pod) if cell[1] is not None and cell[3] in cell[1].ips[:1]]
        self.traces += len(cells)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return [problem for problem in pool.map(one, cells) if problem]

    def apply(self, policies):
        before = self.node.agent.process.output().count("policy in force")
        # With one of a namespace without pods, so that no set equals the one before it.
        self.changes += 1
        marker = policy(f"change-{self.changes}", "nobody")
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [*policies, marker]})
        self.node.write_cluster("policies.json", text)
        wait_until(lambda: self.node.agent.process.output().count("policy in force") > before, "the policies to be in force", 30)


def sctp_exists():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()
        return True
    except OSError:
        return False


def check_tables_go(node, matrix):
    """Rules leave with the last policy; and stay when the agent stops."""
    def table(pod):
        argv = [*pod.prefix(), "nft", "list", "tables"]
        return "inet vsocket" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    problems = []
    matrix.apply(SCENARIOS["deny all, both directions, everywhere"])
    problems += [f"no table in {pod.name}" for pod in matrix.pods if table(pod) != (pod.name != "plain")]
    matrix.apply([])
    problems += [f"a table is left in {pod.name}" for pod in matrix.pods if table(pod)]
    matrix.apply(SCENARIOS["deny all, both directions, everywhere"])
    node.agent.stop()
    problems += [f"the agent took the table of {pod.name} with it" for pod in matrix.pods[:3] if not table(pod)]
    return problems + matrix.try_all(SCENARIOS["deny all, both directions, everywhere"])


def main():
    build = sys.argv[1]
    only = re.compile(sys.argv[2]) if len(sys.argv) > 2 else None
    print("SCTP is in this kernel, and is left to the rules' own tests" if sctp_exists()
          else "this kernel has no SCTP (socket(2): EPROTONOSUPPORT): its packets cannot be sent; policy trace is asked about it instead")
    problems = []
    with Node(build=build, subnet6=SUBNET6) as node:
        node.start_agent()
        matrix = Matrix(node)
        try:
            for name, policies in SCENARIOS.items():
                if only and not only.search(name):
                    continue
                matrix.apply(policies)
                found = matrix.try_all(policies) + matrix.trace_all(policies)
                print(f"{'FAIL' if found else 'ok'}   {name}", flush=True)
                problems += [f"{name}: {problem}" for problem in found]
            said = node.agent.ask("policy", "trace", "shop/web", "shop/api:9999/sctp")
            if said["asked"]["protocol"] != "SCTP":
                problems.append(f"a trace by SCTP says {said}")
            problems += check_tables_go(node, matrix)
        finally:
            matrix.close()
    for problem in problems[:40]:
        print(problem)
    print(f"{'FAIL' if problems else 'PASS'} matrix: {matrix.cells_tried} cells tried, {matrix.traces} traces compared, "
          f"{len(SCENARIOS)} sets of policies, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
