#!/usr/bin/env python3
"""Runs each test of lifecycle_test in a pod, with connections that ask for a ring at the first byte, and looks at the counters afterwards:
the connection must have been on a ring, and must have left it for the reason the test is about, or not at all. Needs root.

    lifecycle_ring_test.py BUILD [TEST...]
"""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "lib"))

from pods import Node  # noqa: E402

UNSUPPORTED, HANDED_OVER = "9", "10"  # channel/reason.h

# Why a connection of the test goes down to TCP.
REASONS = {
    "ForkDup2ExecLikeInetd": HANDED_OVER,
    "ForkCloseDupExec": HANDED_OVER,
    "VforkDup2Exec": HANDED_OVER,
    "PosixSpawnWithActions": HANDED_OVER,
    "AHandOverDoesNotNeedThePeersProgram": HANDED_OVER,
    "AHandOverAfterThePeersEndHasAllThatItSent": HANDED_OVER,
    "AHandOverWhileThePeerSends": HANDED_OVER,
    "AHandOverAfterThePeersEnd": HANDED_OVER,
    "AHandOverAfterThePeerHasOutgrownTheRing": HANDED_OVER,
    "SystemInherits": HANDED_OVER,
    "PassedToAStranger": HANDED_OVER,
    "StdioOnASocket": UNSUPPORTED,
    "OptionsReadBackAsSet": UNSUPPORTED,
    "ABlockingSendIsWholeThoughTheRingIsLeftMeanwhile": UNSUPPORTED,
    "AReceiveOfAllIsWholeThoughTheRingIsLeftMeanwhile": UNSUPPORTED,
}
ROUNDS = 400 * 64  # what each connection moves before its test begins (lifecycle_test.cc)


def tests_of(program):
    done = subprocess.run([program, "--gtest_list_tests"], check=True, capture_output=True, text=True)
    return [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]


def problem_with(name, pod, program, folder):
    stats = os.path.join(folder, f"{name}.stats")
    shim = {"VSOCKET_UPGRADE_AFTER": "0", "VSOCKET_STATS": stats}
    done = pod.run([program, f"--gtest_filter=*Test.{name}"], shim=shim, env={"LIFECYCLE_ADDRESS": pod.ip}, timeout=60, check=False)
    if done.returncode != 0:
        return f"exit status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    with open(stats, encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    server = max((line for line in lines if line["connections"]), key=lambda line: line["tcp_rx"] + line["ring_rx"], default=None)
    if server is None:
        return f"no line of statistics: {lines}"
    if sum(line["upgraded"] for line in lines) == 0:
        return f"no connection was upgraded: {lines}"
    if server["ring_rx"] < ROUNDS // 4 or server["ring_tx"] < ROUNDS // 4:
        return f"hardly a byte came by the ring: {server}"
    seen = {reason for line in lines for reason in line["reasons"]}
    wanted = {REASONS[name]} if name in REASONS else set()
    if seen != wanted:
        return f"reasons for TCP: {sorted(seen)}, expected {sorted(wanted)}: {lines}"
    return None


def main(build, wanted):
    program = os.path.join(os.path.abspath(build), "bin", "lifecycle_test")
    failed = 0
    with Node(build) as node:
        node.start_agent()
        pod = node.add_pod("both-ends")
        for name in wanted or tests_of(program):
            try:
                problem = problem_with(name, pod, program, node.work)
            except Exception as failure:  # noqa: BLE001: one test that hangs is one failure
                problem = repr(failure)
            print(f"{'ok  ' if problem is None else 'FAIL'} {name}" + (f": {problem}" if problem else ""), flush=True)
            failed += problem is not None
    print("PASS" if not failed else f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
