#!/usr/bin/env python3
"""A node inside a guest: the agent, the CNI chain and pods of test/lib, for a host that calls them by name.

usage: guest_node.py BUILD NAME SUBNET [AGENT-FLAG...]. Requests are lines of JSON on standard input, {"call": name, "with": {...}};
each is answered by one line on standard output, {"value": ...} or {"failure": text}. The end of the input is the end of the node.
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from pods import Node  # noqa: E402
from procs import Failure, read_stats  # noqa: E402


class Calls:
    """What the host may call. Values are what JSON can hold."""

    def __init__(self, node):
        self._node = node
        self._pods = {}

    def start_agent(self):
        self._node.start_agent()

    def kill_agent(self):
        self._node.agent.kill()

    def agent_log(self):
        return self._node.agent.process.output()

    def ask(self, words):
        """The parsed JSON of vsocketctl."""
        return self._node.agent.ask(*words)

    def write_cluster(self, name, text):
        self._node.write_cluster(name, text)

    def add_pod(self, name, **options):
        pod = self._pods[name] = self._node.add_pod(name, **options)
        return {"ip": pod.ip, "uid": pod.uid, "netns": pod.netns, "yaml": pod.yaml(), "full_name": pod.full_name}

    def command(self, pod, argv, shim):
        """The command line that runs `argv` in that pod."""
        return self._pods[pod].command(argv, shim)

    def stats(self, path):
        return read_stats(path)


def main():
    build, name, subnet, *flags = sys.argv[1:]
    with Node(build, agent_flags=flags, name=name, subnet=subnet, own_netns=False) as node:
        node.agent.patience = 90  # emulation
        calls = Calls(node)
        print(json.dumps({"value": {"work": node.work}}), flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = {"value": getattr(calls, request["call"])(**request.get("with", {}))}
            except Failure as failure:
                answer = {"failure": str(failure)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
