#!/usr/bin/env python3
"""Mirrored rings over real verbs between the two virtual machines: every byte is right, the queue pairs do not grow with the connections, a
slow reader stops only itself, an idle agent uses no processor, and a cut cable is noticed.

usage: verbs_pair_test.py --build BUILD. A line for each claim; exit status 0 when all hold. Needs root.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "vm"), os.path.join(HERE, "..", "lib")]

from bed import Bed  # noqa: E402
from procs import Failure  # noqa: E402


class PairTest:
    def __init__(self, bed, build):
        self.bed = bed
        self.program = os.path.join(os.path.abspath(build), "bin", "verbs_pair")
        self.port = 7000
        self.failed = 0
        self.began = time.monotonic()

    def claim(self, good, text):
        print(f"{'PASS' if good else 'FAIL'}  [{time.monotonic() - self.began:5.1f} s] {text}", flush=True)
        self.failed += not good

    def start(self, *options):
        """Both sides of a run; the listening one in machine a."""
        self.port += 1
        words = [self.program, None, str(self.port), "--software", *options]
        listening = self.bed.a.start_command([self.program, "listen", *words[2:]])
        connecting = self.bed.b.start_command([self.program, "connect", self.bed.a.address, *words[2:]])
        return listening, connecting

    def run(self, *options, limit=90):
        """The exit statuses and outputs of both sides."""
        pair = self.start(*options)
        statuses = [one.wait(limit) for one in pair]
        return statuses, [one.output() for one in pair]

    def checked(self, what, *options):
        statuses, outputs = self.run(*options)
        good = statuses == [0, 0] and all("all bytes right" in output for output in outputs)
        told = [line for line in "\n".join(outputs).splitlines() if re.search("bytes sent|round trip|cpu in", line)]
        self.claim(good, what)
        for line in told if good else outputs:
            print(f"      {line}", flush=True)
        return outputs

    def queue_pairs(self, connections):
        """How many queue pairs there are in machine a while so many connections live."""
        pair = self.start("--traffic", "idle", "--connections", str(connections), "--seconds", "4")
        pair[0].wait_said("registered", 60)
        time.sleep(1)
        shown = json.loads(self.bed.a.run(["rdma", "-j", "resource", "show", "qp"]).stdout)
        statuses = [one.wait(60) for one in pair]
        self.claim(statuses == [0, 0], f"{connections} connections come up and are closed")
        return sum(one.get("type") == "RC" for one in shown)

    def cut(self):
        pair = self.start("--connections", "8", "--seconds", "60", "--timeout", "16", "--retry", "3")
        pair[0].wait_said("registered", 60)
        time.sleep(2)
        cut_at = time.monotonic()
        self.bed.b.plug(False)
        output = pair[0].wait_said("path lost", 30)
        self.claim("path lost: the far side does not acknowledge" in output.output(), "a cut cable is noticed by the device")
        print(f"      after {time.monotonic() - cut_at:.1f} s: {re.search('path lost.*', output.output()).group(0)}", flush=True)
        for one in pair:
            one.kill()
        self.bed.b.plug(True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    options = parser.parse_args()
    with Bed(build=options.build) as bed:
        test = PairTest(bed, options.build)
        try:
            test.checked("1 B to 64 KiB at a time, both ways on 32 connections", "--connections", "32", "--seconds", "5")
            test.checked("one stream", "--traffic", "stream", "--seconds", "3")
            test.checked("64 bytes there and back", "--traffic", "pingpong", "--seconds", "3")
            outputs = test.checked("a reader that sleeps stops only itself", "--traffic", "slow", "--connections", "8", "--seconds", "4")
            moved = [int(number) for number in re.findall(r"(\d+) received and checked", " ".join(outputs))]
            test.claim(min(moved, default=0) > 1 << 20, "... and the others move megabytes meanwhile")
            outputs = test.checked("the same with agents and pods that poll", "--connections", "4", "--seconds", "4",
                                   "--spin-us", "50000", "--pods-poll")
            cells = [int(number) for number in re.findall(r"(\d+) positions", " ".join(outputs))]
            test.claim(sum(cells) > 5, f"... by positions that wake nobody: {sum(cells)}")
            counts = {connections: test.queue_pairs(connections) for connections in (1, 200)}
            test.claim(set(counts.values()) == {3}, f"three queue pairs with 1 connection and with 200: {counts}")
            idle = test.checked("an idle agent", "--traffic", "idle", "--connections", "50", "--seconds", "6")
            used = [float(number) for number in re.findall(r"used ([0-9.]+) ms of cpu", " ".join(idle))]
            test.claim(len(used) == 2 and max(used) < 1, f"... uses no processor: {used} ms")
            test.cut()
        except (Failure, subprocess.TimeoutExpired) as failure:
            test.claim(False, str(failure))
    print("PASS" if test.failed == 0 else f"FAIL: {test.failed} claims")
    return 1 if test.failed else 0


if __name__ == "__main__":
    sys.exit(main())
