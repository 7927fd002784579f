#!/usr/bin/env python3
"""Two virtual machines with software RDMA: they come up, RDMA and TCP work between them, vsocket works inside, faults are real, nothing is
left.

usage: bed_test.py --build BUILD [--all]. --all adds every fault and a longer run. A line for each claim; exit status 0 when all hold.
"""

import argparse
import os
import re
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

from bed import Bed  # noqa: E402
from procs import Failure, wait_until  # noqa: E402
from vm_node import VmNode, publish  # noqa: E402

PORT = 6379
CLIENT = os.path.join(HERE, "..", "..", "deploy", "demo", "checking_client.py")
PYTHON = "/usr/bin/python3"  # Debian's, which is in the guests


class BedTest:
    def __init__(self, bed, everything):
        self.bed, self.everything = bed, everything
        self.failed = 0
        self.began = time.monotonic()

    def claim(self, good, text):
        print(f"{'PASS' if good else 'FAIL'}  [{time.monotonic() - self.began:5.1f} s] {text}", flush=True)
        self.failed += not good

    def machines(self):
        return self.bed.machines.values()

    def verbs(self):
        for machine in self.machines():
            link = machine.run(["rdma", "link"]).stdout
            self.claim("rxe0/1 state ACTIVE physical_state LINK_UP" in link, f"{machine.name}: the link of rxe0 is active")
            port = machine.run(["ibv_devinfo", "-d", "rxe0"]).stdout
            good = "PORT_ACTIVE" in port and "active_mtu:\t\t4096" in port
            self.claim(good, f"{machine.name}: its port is active, with an MTU of 4096")
        self.ping_pong(200)

    def ping_pong(self, rounds):
        words = ["stdbuf", "-oL", "ibv_rc_pingpong", "-d", "rxe0", "-g", "1", "-n", str(rounds), "-c", "-s", "4096"]
        server = self.bed.a.start_command(words).wait_said("local address", 60)
        client = self.bed.b.run([*words, self.bed.a.address], timeout=120, check=False)
        status = server.wait(60) if client.returncode == 0 else server.kill()
        good = (status, client.returncode) == (0, 0) and f"{rounds} iters" in client.stdout
        text = f"{rounds} turns of 4096 bytes by an RC queue pair, every byte compared"
        self.claim(good, text if good else f"not {text}: {server.output()} {client.output()}")

    def streams_and_files(self):
        done = self.bed.a.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
        self.claim(done == (3, "out\n", "err\n"), "a command's streams and exit status come back")
        path = self.bed.put(__file__, "there")
        self.bed.b.run(["cp", path, self.bed.guest_path("back")])
        back = os.path.join(self.bed.folder, "back")
        self.bed.get("back", back)
        with open(back, "rb") as one, open(__file__, "rb") as other:
            self.claim(one.read() == other.read(), "a file goes in and comes back")
        self.bed.a.run(["touch", "/etc/vsocket-was-here"])
        self.claim(not os.path.exists("/etc/vsocket-was-here"), "what is written inside stays inside")

    # vsocket inside

    def nodes(self):
        self.node_a, self.node_b = (VmNode(machine, self.bed.build) for machine in self.machines())
        for node, other in ((self.node_a, self.node_b), (self.node_b, self.node_a)):
            node.start_agent()
            node.route(other)
        self.server_pod = self.node_a.add_pod("server", ports={"redis": PORT})
        self.near = self.node_a.add_pod("near")
        self.far = self.node_b.add_pod("far")
        publish([self.node_a, self.node_b])
        pods = [row["name"] for node in (self.node_a, self.node_b) for row in node.ask("pods")["pods"]]
        self.claim(sorted(pods) == ["far", "near", "server"], "an agent on each, and three pods by the CNI chain")

    def pods(self):
        words = ["redis-server", "--port", PORT, "--save", "", "--appendonly", "no", "--protected-mode", "no"]
        server_stats = os.path.join(self.node_a.work, "server.stats")
        near_stats = os.path.join(self.node_a.work, "near.stats")
        server = self.server_pod.start(words, shim={"VSOCKET_STATS": server_stats}).wait_said("Ready to accept connections", 60)
        near, far = (
            pod.start([PYTHON, CLIENT, self.server_pod.ip, PORT, pod.name], shim={"VSOCKET_STATS": stats})
            for pod, stats in ((self.near, near_stats), (self.far, os.path.join(self.node_b.work, "far.stats")))
        )
        wait_until(lambda: self.node_a.connections(pod="default/near", state="ring"), "the near client on rings", 60, every=0.5)
        near.wait_said("turns", 60)
        far.wait_said("turns", 60)
        rows = self.node_b.connections(pod="default/far", remote_port=PORT)
        by_tcp = len(rows) == 1 and rows[0]["state"] != "ring"
        self.claim(by_tcp, f"the far client is on TCP: {rows[0]['reason_text'] if by_tcp else rows}")
        self.cable_under(far)
        for name, client in (("near", near), ("far", far)):
            client.send_signal(signal.SIGTERM)
            self.claim(client.wait(60) == 0, f"{name}: {client.output().strip().splitlines()[-1]}")
        server.stop()
        stats = self.node_a.call("stats", path=near_stats)
        self.claim(stats["ring_tx"] > 0 and stats["ring_rx"] > stats["tcp_rx"], f"near moved its bytes by rings: {stats}")

    def cable_under(self, client):
        """The cable cut for a while under a connection: TCP goes on where it was."""
        self.bed.plug_all(False)
        self.bed.plug_all(True)
        turns = last_turns(client)
        client.wait_for(lambda: last_turns(client) > turns, "goes on when the cable is back", 60)
        self.claim(client.alive(), "the far client goes on after the cable was cut and restored")

    # Faults

    def reaches(self):
        """Whether a packet gets from a to b and back."""
        return self.bed.a.run(["busybox", "ping", "-c", "1", "-W", "1", self.bed.b.address], check=False).returncode == 0

    def faults(self):
        self.bed.b.plug(False)
        self.claim(not self.reaches(), "nothing goes through a cable that is cut at the other end")
        self.bed.b.plug(True)
        self.claim(self.comes_back(), "it does again when it is restored")
        if self.everything:
            self.bed.a.lose(100)
            self.claim(not self.reaches(), "nothing comes back when a loses all that comes in")
            self.bed.a.lose(0)
            self.claim(self.comes_back(), "and does when a loses nothing")
            self.bed.b.lose(100, "udp dport 4791")
            self.claim(self.reaches(), "RoCE alone can be lost")
            self.bed.b.lose(0)
            self.bed.a.disturb("corrupt", "5%")
            self.ping_pong(300)
            self.bed.a.disturb()
        self.bed.b.pause()
        self.claim(not self.reaches(), "a paused machine does not answer")
        self.bed.b.resume()
        self.claim(self.comes_back(), "and does when it goes on")
        if self.everything:
            self.bed.b.kill()
            self.claim(not self.reaches(), "a machine without power does not answer")
            self.bed.b.restart()
            self.claim(self.comes_back(), "and does when it has booted again")
            self.ping_pong(2000)

    def comes_back(self):
        try:
            return wait_until(self.reaches, "an answer", timeout=30, every=0.1)
        except Failure:
            return False

    def run(self):
        self.claim(self.bed.up_seconds < 60, f"both machines up in {self.bed.up_seconds:.1f} s")
        self.verbs()
        self.streams_and_files()
        self.nodes()
        self.pods()
        for node in (self.node_a, self.node_b):
            node.close()
        self.faults()


def last_turns(client):
    return int((re.findall(r"turns (\d+)", client.stdout) or [0])[-1])


def left(bed, pids):
    """What is still there of a bed that is down."""
    return [path for path in [bed.folder, *(f"/proc/{pid}" for pid in pids)] if os.path.exists(path)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    with Bed(options.build) as bed:
        test = BedTest(bed, options.all)
        pids = [machine.pid for machine in bed.machines.values()]
        try:
            test.run()
        except Failure as failure:
            test.claim(False, str(failure))
    remains = left(bed, pids)
    test.claim(not remains, f"down, and nothing is left: {remains or 'no process, no file'}")
    return 1 if test.failed else 0


if __name__ == "__main__":
    sys.exit(main())
