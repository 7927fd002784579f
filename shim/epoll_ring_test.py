#!/usr/bin/env python3
"""Runs the tests of epoll_edges_test in a pod, with connections that ask for a ring at the first byte: as they are, with every direction
sent back to TCP each millisecond, without spinning, and upgraded in the middle of a stream. The shim's counters must show that they ran on
rings, and that directions came down where they are made to. Needs root.

    epoll_ring_test.py BUILD [WAY...] [TEST...]
"""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "lib"))

from pods import Node  # noqa: E402
from procs import read_stats  # noqa: E402

WAYS = {
    "rings": {}, "flapping": {"VSOCKET_FLAP_MS": "1"}, "no spinning": {"VSOCKET_SPIN_US": "0"}, "late": {"VSOCKET_UPGRADE_AFTER": "500000"},
}
UNFIT = {
    "flapping": [
        "ALoopIsToldOfAnEndBehindTheLastBytes",  # its connections end before a millisecond is over
        "ConnectionsComeAndGoUnderAThreadThatLooks",  # moves little at a time, and waits
    ]
}
TESTS = {"late": ["ALoopIsToldOfAllThatComesAfterAShortReadOrWrite"]}  # others move less before they begin
LEAST_BYTES = 3000  # by rings, in the test that moves the fewest


def tests_of(program):
    done = subprocess.run([program, "--gtest_list_tests"], check=True, capture_output=True, text=True)
    return [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]


def problem_with(name, way, pod, program, folder):
    stats_file = os.path.join(folder, f"{name}-{way}.stats")
    shim = {"VSOCKET_UPGRADE_AFTER": "0", "VSOCKET_STATS": stats_file, **WAYS[way]}
    argv = [program, f"--gtest_filter=EpollEdgesTest.{name}"]
    done = pod.run(argv, shim=shim, env={"LIFECYCLE_ADDRESS": pod.ip}, timeout=60, check=False)
    if done.returncode != 0:
        return f"exit status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    stats = read_stats(stats_file)
    if not stats["upgraded"] or stats["ring_rx"] < LEAST_BYTES or stats["ring_tx"] < LEAST_BYTES:
        return f"hardly a byte came by the ring: {stats}"
    if way == "flapping" and not stats["downs"]:
        return f"no direction came down: {stats}"
    return None


def main(build, wanted):
    program = os.path.join(os.path.abspath(build), "bin", "epoll_edges_test")
    failed = 0
    with Node(build) as node:
        node.start_agent()
        pod = node.add_pod("both-ends")
        for way in [way for way in WAYS if way in wanted] or WAYS:
            for name in [name for name in wanted if name not in WAYS] or TESTS.get(way) or tests_of(program):
                if name in UNFIT.get(way, []):
                    continue
                try:
                    problem = problem_with(name, way, pod, program, node.work)
                except subprocess.TimeoutExpired as late:
                    problem = str(late)
                print(f"{'ok  ' if problem is None else 'FAIL'} {way}: {name}" + (f": {problem}" if problem else ""), flush=True)
                failed += problem is not None
    print("PASS" if not failed else f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
