#!/usr/bin/env python3
"""Live ring connections under policies from a real API server: kubectl apply cuts them; while the server is gone they go on, and new ones
are judged by what was known last.

usage: rings_test.py --build BUILD_FOLDER
"""

import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "agent"), os.path.join(HERE, "..", "lib")]

from cluster_objects import deny_all, let_in  # noqa: E402
from control_plane import binaries  # noqa: E402
from kube_node import kube_node  # noqa: E402
from procs import Failure, wait_until  # noqa: E402
from talk import Talker, serve  # noqa: E402


def problems_of(node):
    return node.agent.ask("status")["problems"]


def expect(condition, text):
    if not condition:
        raise Failure(text)


def cut(talker):
    """Whether the program has been told that its connection was reset."""
    return talker.ask("talk(1)") == "error 104"


def on_ring(pod, server):
    talker = Talker(pod, server.ip)
    talker.talk_until("ring")
    return talker


def wait_verdict(node, source, destination, allowed):
    wait_until(lambda: node.agent.ask("policy", "trace", source, f"{destination}:7100")["allowed"] is allowed,
               f"{source} to {destination} allowed: {allowed}", 30)


def play(node):
    server = node.add_pod("server", labels={"app": "server"})
    friend = node.add_pod("friend", labels={"app": "friend"})
    other = node.add_pod("other", labels={"app": "other"})
    wait_verdict(node, "other", "server", True)
    serve(server)
    first, second = on_ring(friend, server), on_ring(other, server)

    node.plane.apply(let_in("friends", "server", app="friend"))
    wait_until(lambda: cut(second), "the connection that a policy forbids to be cut", 30)
    first.talk_until("ring")
    print("PASS kubectl apply cuts what it forbids, and nothing else")

    node.plane.apiserver.kill()
    wait_until(lambda: problems_of(node), "the agent to say that the server is gone", 60)
    first.talk_until("ring")
    third = on_ring(friend, server)
    expect(not node.agent.ask("policy", "trace", "other", "server:7100")["allowed"], "the last known policy is not in force")
    print("PASS with the API server gone connections go on, new ones come to rings, and what was forbidden stays so")

    node.agent.kill()
    node.agent.process = None
    first.talk()
    print("PASS with the agent gone as well they go on")

    node.plane.start_apiserver()
    node.start_agent()
    wait_until(lambda: not problems_of(node), "the agent to follow again", 60)
    first.talk_until("ring", 30)
    node.plane.apply(deny_all("closed", app="server"))
    node.plane.kubectl("delete", "networkpolicy", "friends")  # what one policy allows, another does not take away
    wait_until(lambda: cut(first) and cut(third), "both connections to be cut", 30)
    print("PASS a policy that comes after all of that cuts them")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build folder with bin/ and lib/")
    options = parser.parse_args()
    try:
        binaries()
        with kube_node(options.build) as node:
            play(node)
    except Failure as failure:
        print(f"FAIL {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
