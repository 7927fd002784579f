#!/usr/bin/env python3
"""What the tests of a sanitized build rely on: a report of a child, whose exit status nobody looks at, makes leaving the node a Failure,
and a program without a fault does not. Needs root.

    run.py BUILD
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from pods import Node  # noqa: E402
from procs import Failure  # noqa: E402
from sanitizer import sanitizers_of  # noqa: E402

FAULTS = {"address": ["bounds"], "undefined": ["overflow"], "thread": ["race"]}


def is_reported(build, fault):
    try:
        with Node(build) as node:
            node.start_agent()
            pod = node.add_pod("faulty")
            pod.run([os.path.join(node.build, "bin", "faulty"), fault], shim=True)
    except Failure as failure:
        return "sanitizer" in str(failure)
    return False


def main(build):
    failed = 0
    faults = [fault for sanitizer in sanitizers_of(build).split(",") for fault in FAULTS[sanitizer]]
    for fault in ["none", *faults]:
        well = is_reported(build, fault) == (fault != "none")
        print(f"{'ok  ' if well else 'FAIL'} {fault}", flush=True)
        failed += not well
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
