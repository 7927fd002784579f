#!/usr/bin/env python3
"""The demo: what vsocket does, shown on one machine in seconds. A PASS or FAIL line for each claim; exit status 0 when all passed."""

import argparse
import csv
import io
import os
import re
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "test", "lib"))

from pods import Node  # noqa: E402
from procs import Failure, wait_until  # noqa: E402

PORT = 6379
POLICY = os.path.join(HERE, "policy-only-orders.yaml")
LEASE_SECONDS = 2  # short, so that the demo need not wait to show what comes after it
SERVER_CPU, CLIENT_CPU = 0, 1


class Demo:
    def __init__(self, node):
        self.node = node
        self.failed = 0

    def say(self, text=""):
        print(text, flush=True)

    def claim(self, good, text):
        self.say(f"{'PASS' if good else 'FAIL'}  {text}")
        self.failed += not good
        return good

    # 1
    def wire(self):
        self.say("1. Three pods, wired by bridge, host-local, portmap and vsocket-cni")
        self.node.start_agent()
        self.redis = self.node.add_pod("redis", ns="shop", ports={"redis": PORT}, host_ports={16379: PORT})
        self.orders = self.node.add_pod("orders", ns="shop")
        self.guest = self.node.add_pod("guest", ns="shop")
        rows = self.node.agent.ask("pods")["pods"]
        self.say(self.node.agent.ctl("pods", as_json=False).stdout)
        names = {row["name"] for row in rows}
        self.claim(names == {"redis", "orders", "guest"}, "the CNI chain wired three pods, and the agent knows each of them")

    def start_redis(self, shim):
        argv = ["redis-server", "--port", PORT, "--save", "", "--appendonly", "no", "--protected-mode", "no", "--dir", self.node.work]
        return self.redis.start(argv, shim=shim, cpu=SERVER_CPU).wait_listening(PORT)

    def benchmark(self, command, shim, requests):
        argv = ["redis-benchmark", "-h", self.redis.ip, "-p", PORT, "-t", command, "-c", 50, "-d", 64, "-n", requests, "--csv"]
        output = self.orders.run(argv, shim=shim, cpu=CLIENT_CPU, timeout=120).stdout
        row = list(csv.DictReader(io.StringIO(output)))[-1]
        return float(row["rps"]), float(row["p99_latency_ms"])

    # 2
    def compare(self):
        self.say("\n2. redis-server in one pod, redis-benchmark in another: 50 connections, 64 bytes; first bare, then with the shim")
        figures = {}
        for side, shim, requests in (("bare", False, 100_000), ("vsocket", True, 1_000_000)):
            server = self.start_redis(shim)
            figures[side] = {command: self.benchmark(command, shim, requests) for command in ("get", "set")}
            server.stop()
        self.say(f"   {'':5} {'kernel TCP':>22} {'vsocket':>22} {'ratio':>8}")
        ratios = []
        for command in ("get", "set"):
            (bare, bare_p99), (ours, our_p99) = figures["bare"][command], figures["vsocket"][command]
            ratios.append(ours / bare)
            tails = f"p99 {bare_p99:.3f} / {our_p99:.3f} ms"
            self.say(f"   {command.upper():5} {bare:>14,.0f} req/s  {ours:>14,.0f} req/s {ratios[-1]:>7.1f}x   {tails}")
        self.claim(min(ratios) > 1, f"the unmodified programs are faster with the shim: {min(ratios):.1f}x to {max(ratios):.1f}x")

    def check_client(self, pod):
        argv = [sys.executable, os.path.join(HERE, "checking_client.py"), self.redis.ip, PORT, pod.name]
        return pod.start(argv, shim=True)

    def on_ring(self, pod, process):
        rows = self.node.agent.connections(pod=pod.full_name, state="ring")
        return [row for row in rows if row["pid"] == process.pid and row["remote_port"] == PORT]

    # 3
    def show_connections(self):
        self.say("\n3. Live connections, each client checking every byte that it gets")
        self.server = self.start_redis(shim=True)
        self.order_client = self.check_client(self.orders)
        self.guest_client = self.check_client(self.guest)
        try:
            clients = {self.orders: self.order_client, self.guest: self.guest_client}
            wait_until(lambda: all(self.on_ring(pod, process) for pod, process in clients.items()), "both clients on rings")
            good = True
        except Failure:
            good = False
        self.say(self.node.agent.ctl("connections", as_json=False).stdout)
        self.claim(good, "vsocketctl shows both clients' connections on rings")

    def can_connect(self, pod):
        program = f"import socket; socket.create_connection(('{self.redis.ip}', {PORT}), timeout=2).close()"
        return pod.run([sys.executable, "-c", program], shim=True, check=False).returncode == 0

    # 4
    def policy(self):
        self.say("\n4. kubectl apply -f policy-only-orders.yaml (here: the file goes into the agent's source directory)")
        with open(POLICY, encoding="utf-8") as stream:
            text = stream.read()
        turns_before = turns(self.order_client)
        applied = time.monotonic()
        self.node.write_cluster("policy.yaml", text)
        try:
            self.guest_client.wait(timeout=10)
            match = re.search(r"^error ([\d.]+) (.*)", self.guest_client.output(), re.M)
            after = float(match.group(1)) - applied if match else None
        except Exception:  # still connected: the claim fails
            after = None
        cut = f"cut {after * 1000:.0f} ms later: {match.group(2)}" if after is not None else "never cut"
        self.claim(after is not None and after < 1.0, f"guest's live connection was {cut}")
        self.say(self.node.agent.ctl("policy", "trace", "shop/guest", "shop/redis:redis", as_json=False).stdout)
        self.claim(not self.can_connect(self.guest), "a new connection of guest is refused")
        wait_until(lambda: turns(self.order_client) > turns_before + 10 or not self.order_client.alive(), "orders to go on")
        good = self.order_client.alive() and bool(self.on_ring(self.orders, self.order_client))
        self.claim(good, "orders goes on, still accelerated, without an error")
        self.node.write_cluster("policy.yaml", None)
        try:
            wait_until(lambda: self.can_connect(self.guest), "guest to be let in", timeout=5)
            good = True
        except Failure:
            good = False
        self.claim(good, "the policy is removed, and guest may connect again")
        self.guest_client = self.check_client(self.guest)

    # 5
    def kill_agent(self):
        self.say("\n5. The agent is killed with SIGKILL under load, and started again")
        clients = {self.orders: self.order_client, self.guest: self.guest_client}
        wait_until(lambda: all(self.on_ring(pod, process) for pod, process in clients.items()), "both clients on rings")
        before = {pod: turns(process) for pod, process in clients.items()}
        self.node.agent.kill()
        killed = time.monotonic()
        # While the lease holds the rings go on; after it the connections go on over TCP.
        time.sleep(2 * LEASE_SECONDS + 1)
        dead_for = time.monotonic() - killed
        good = all(process.alive() and turns(process) > before[pod] + 10 for pod, process in clients.items())
        self.claim(good, f"both clients worked on for {dead_for:.1f} s without an agent (lease {LEASE_SECONDS} s)")
        self.node.start_agent()
        try:
            wait_until(lambda: all(self.on_ring(pod, process) for pod, process in clients.items()), "rings again", timeout=20)
            good = True
        except Failure:
            good = False
        self.say(self.node.agent.ctl("connections", as_json=False).stdout)
        self.claim(good, "with a new agent both connections are accelerated again")
        for pod, process in clients.items():
            process.popen.send_signal(signal.SIGTERM)
            status = process.wait(timeout=15)
            self.claim(status == 0, f"{pod.name} saw no error and lost no byte: {process.output().splitlines()[-1]}")

    def run(self):
        for step in (self.wire, self.compare, self.show_connections, self.policy, self.kill_agent):
            try:
                step()
            except Exception as trouble:  # a step that cannot go on is one failed claim; the next steps still tell what they can
                self.claim(False, f"{step.__name__}: {trouble}")


def turns(process):
    found = re.findall(r"^turns (\d+)", process.output(), re.M)
    return int(found[-1]) if found else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        with Node(options.build, agent_flags=[f"--lease-seconds={LEASE_SECONDS}"]) as node:
            demo = Demo(node)
            demo.run()
            if demo.failed:
                print(f"-- the end of the agent's log:\n{node.agent.process.output()[-3000:]}")
    except Failure as failure:
        print(f"FAIL  {failure}")
        return 1
    print("\n6. Cleaning up")
    left = node.leftovers()
    demo.claim(not left, f"nothing is left behind{': ' + ', '.join(left) if left else ''}")
    print(f"\n{'FAIL' if demo.failed else 'PASS'}: {demo.failed} claims failed, {time.monotonic() - started:.0f} s")
    return 1 if demo.failed else 0


if __name__ == "__main__":
    sys.exit(main())
