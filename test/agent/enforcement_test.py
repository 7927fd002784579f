#!/usr/bin/env python3
"""--enforcement: what is in force with each word, what auto makes of a node's CNI, and that a choice that changes takes its rules along.

usage: enforcement_test.py BUILD_FOLDER
"""

import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from matrix_scenarios import policy  # noqa: E402
from pods import Node  # noqa: E402
from procs import Failure, Process, wait_until  # noqa: E402


def has_table(pod):
    said = subprocess.run([*pod.prefix(), "nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return "inet vsocket" in said


def main():
    problems = []
    with Node(build=sys.argv[1]) as node:
        configs = os.path.join(node.work, "net.d")
        enforcer = os.path.join(node.work, "calico-node")
        os.makedirs(configs)
        shutil.copy("/bin/sleep", enforcer)
        node.write_cluster("policy.json", json.dumps(policy("deny", "default")))

        def configure(plugin):
            with open(os.path.join(configs, "10-primary.conflist"), "w", encoding="utf-8") as stream:
                json.dump({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": plugin}, {"type": "portmap"}]}, stream)

        def check(flag, in_force, why):
            node.agent.flags = ["--enforcement", flag]
            node.agent.start()
            if not node.pods:
                node.add_pod("web")
            wait_until(lambda: has_table(node.pods[0]) == (in_force == "both"), f"{flag} to be in force: {node.agent.process.output()}")
            said = node.agent.ask("status")["enforcement"]
            if (said["asked"], said["in_force"]) != (flag, in_force) or why not in said["why"]:
                problems.append(f"{flag}: {said}")
            if "enforcement chosen" not in node.agent.process.output():
                problems.append(f"{flag}: not in the log")
            if why not in node.agent.ctl("status", as_json=False).stdout:
                problems.append(f"{flag}: not told to people")
            node.agent.stop()

        check("both", "both", "as --enforcement says")
        check("ring-only", "ring-only", "as --enforcement says")
        check("auto", "both", "no CNI configuration was found")
        configure("bridge")
        check("auto", "both", "pods are wired by the CNI plugin bridge")
        configure("calico")
        check("auto", "both", "pods are wired by it, but its agent does not run")
        process = Process([enforcer, "1000"], os.path.join(node.work, "enforcer.log"))
        node.processes.append(process)
        check("auto", "ring-only", "Calico enforces policies on this node: calico-node runs, and pods are wired by it")
        process.stop()
        check("auto", "both", "its agent does not run")
        node.agent.start()  # for the pod's DEL
    print("PASS enforcement" if not problems else f"FAIL enforcement: {'; '.join(problems)}")
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"FAIL enforcement: {failure}")
