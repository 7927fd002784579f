#!/usr/bin/env python3
"""Runs death in a pod under the shim: applications are killed at random points, and with --kill-agent-ms the agent as well.

Passes when every survivor saw what kernel TCP shows, when bytes really went over rings, and when the agent afterwards holds what it held
before: descriptors, mapped memory, channels.
"""

import json
import os
import random
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import driver  # noqa: E402
from pods import Node  # noqa: E402
from procs import Failure, read_stats, wait_until  # noqa: E402


def parse():
    parser = driver.option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=1000, help="kills to survive")
    parser.add_argument("--seconds", type=int, default=0, help="run so long instead")
    parser.add_argument("--slots", type=int, default=3, help="rounds at the same time")
    driver.add_fault_options(parser)
    return parser.parse_args()


def footprint(agent):
    """What the agent holds: descriptors, memfd mappings and memfd descriptors, channels, regions."""
    pid = agent.process.pid
    memory = 0
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        memory = sum(1 for line in maps if "/memfd:" in line)
    files = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
        files[target] = files.get(target, 0) + 1
    status = agent.ask("status")
    return {"files": files, "memfd_maps": memory, "channels": status.get("channels", 0), "regions": status.get("regions", 0)}


def growth(before, after):
    """What is more in `after`, as text; empty when nothing is."""
    grown = [f"{key} {before[key]} -> {after[key]}" for key in ("memfd_maps", "channels", "regions") if after[key] > before[key]]
    for target, count in after["files"].items():
        if count > before["files"].get(target, 0):
            grown.append(f"fd {target} {before['files'].get(target, 0)} -> {count}")
    return ", ".join(grown)


def await_baseline(agent, before):
    """Gives the agent time until nothing is left over (no event tells of that); returns what still is."""
    try:
        wait_until(lambda: not growth(before, footprint(agent)), "the agent's footprint", timeout=15, every=0.1)
    except Failure:
        return growth(before, footprint(agent))
    return ""


def run_once(options):
    with Node(build=options.build) as node:
        node.start_agent()
        pod = node.add_pod("death", labels={"app": "death"})
        stats_path = os.path.join(node.work, "stats")
        settings = {"VSOCKET_UPGRADE_AFTER": "0", "VSOCKET_STATS": stats_path}
        if options.flap_ms:
            settings["VSOCKET_FLAP_MS"] = str(options.flap_ms)
        if options.hold:
            settings["DEATH_HOLD"] = str(options.hold)
        argv = [os.path.join(node.build, "bin", "death"), "--seed", options.seed, "--slots", options.slots, "--address", pod.ip]
        argv += ["--seconds", options.seconds] if options.seconds else ["--rounds", options.rounds]
        before = footprint(node.agent)
        process = pod.start(argv, shim=settings)
        limit = max(options.seconds, 60) * 10
        kills = driver.disturb(node.agent, [process], random.Random(options.seed), options.kill_agent_ms, limit)
        print(process.output().rstrip()[-4000:])
        problems = [] if process.popen.returncode == 0 else [f"death ended with {process.popen.returncode}"]
        stats = read_stats(stats_path)  # the killed write none: what the survivors saw
        stats["agent_kills"] = kills
        left = await_baseline(node.agent, before)
        if left:
            problems.append(f"the agent still holds: {left}")
        if stats["ring_rx"] == 0:
            problems.append("no byte went over a ring: nothing was tested")
        print(json.dumps({"shim": stats}))
        return problems


if __name__ == "__main__":
    sys.exit(driver.main("death", parse(), run_once))
