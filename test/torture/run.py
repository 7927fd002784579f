#!/usr/bin/env python3
"""Runs torture between two pods (or inside one) under the shim, with forced switches, while the agent is killed and restarted.

Passes when torture passes, as many bytes as asked for were verified, and the shim's statistics show that bytes really went over rings.
Prints torture's report and one line PASS or FAIL; the command line that repeats a run is printed first.
"""

import json
import os
import random
import shlex
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import driver  # noqa: E402
from pods import Node  # noqa: E402
from procs import read_stats  # noqa: E402


def parse():
    parser = driver.option_parser(__doc__)
    parser.add_argument("--bytes", default="256m", help="to verify: N, Nk, Nm or Ng")
    parser.add_argument("--seconds", type=int, default=0, help="run so long; the bytes are then the least that must be verified")
    parser.add_argument("--processes", type=int, default=2, help="pairs of processes")
    parser.add_argument("--threads", type=int, default=2, help="lanes in each")
    parser.add_argument("--style", help="passed on to torture")
    parser.add_argument("--upgrade-after", type=int, default=0, help="bytes after which a connection asks for a ring")
    parser.add_argument("--one-pod", action="store_true", help="both ends in one pod, over its own address")
    parser.add_argument("--program", default="torture", help="torture, or torture-musl")
    parser.add_argument("--wrap", default="", help="command to put before torture, e.g. 'valgrind -q'")
    parser.add_argument("--limit", help="bandwidth of each pod, each way, as a Kubernetes quantity: 200M")
    parser.add_argument("--stall", type=int, default=20)
    parser.add_argument("--log", action="store_true", help="VSOCKET_LOG=debug; the end of the logs is printed on failure")
    parser.add_argument("--off", action="store_true", help="shim loaded, upgrades off: nothing may go over a ring")
    parser.add_argument("--bare", action="store_true", help="without the shim: the reference on the same path")
    driver.add_fault_options(parser)
    return parser.parse_args()


ABSENCES = (0, 0, 0.01, 0.1, 0.5)  # seconds without an agent


def byte_count(text):
    return int(text[:-1]) << {"k": 10, "m": 20, "g": 30}[text[-1].lower()] if text[-1].isalpha() else int(text)


def torture_argv(options, node, address):
    argv = [*shlex.split(options.wrap), os.path.join(node.build, "bin", options.program)]
    argv += ["--seed", options.seed, "--address", address, "--processes", options.processes, "--threads", options.threads]
    argv += ["--stall", options.stall]
    argv += ["--seconds", options.seconds] if options.seconds else ["--bytes", options.bytes]
    static_echo = os.path.join(node.build, "bin", "torture-echo-static")
    if os.path.exists(static_echo):
        argv += ["--static-echo", static_echo]
    if options.style:
        argv += ["--style", options.style]
    return argv


def shim_settings(options, node, who):
    if options.bare:
        return False
    settings = {
        "VSOCKET_UPGRADE": "off" if options.off else "on",
        "VSOCKET_UPGRADE_AFTER": str(options.upgrade_after),
        "VSOCKET_STATS": os.path.join(node.work, "stats"),
    }
    if options.flap_ms:
        settings["VSOCKET_FLAP_MS"] = str(options.flap_ms)
    if options.log:
        settings["VSOCKET_LOG"] = f"debug:{os.path.join(node.work, 'logs', 'shim-' + who)}"
    if options.hold:
        settings["TORTURE_HOLD"] = str(options.hold)
    return settings


def last_json(text):
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    return {}


def check(options, processes, stats):
    """What is wrong with a finished run; an empty list when nothing is."""
    problems = [f"torture ended with {process.popen.returncode}" for process in processes if process.popen.returncode != 0]
    report = last_json(processes[0].output())
    verified = report.get("bytes_verified", 0)
    if verified < byte_count(options.bytes):
        problems.append(f"{verified} bytes verified, {options.bytes} asked for")
    if options.off and stats["ring_tx"]:
        problems.append(f"{stats['ring_tx']} bytes over rings with upgrades off")
    if not (options.off or options.bare) and (stats["ring_tx"] == 0 or stats["ring_rx"] == 0):
        problems.append("no byte went over a ring: nothing was tested")
    if options.flap_ms and not options.bare and stats["downs"] == 0:
        problems.append("no connection came down to TCP in spite of --flap-ms")
    return problems


def run_once(options):
    choices = random.Random(options.seed)
    with Node(build=options.build) as node:
        node.start_agent()
        limits = {f"kubernetes.io/{way}-bandwidth": options.limit for way in ("ingress", "egress")} if options.limit else {}
        a = node.add_pod("connector", labels={"app": "connector"}, annotations=limits)
        b = a if options.one_pod else node.add_pod("acceptor", labels={"app": "acceptor"}, annotations=limits)
        argv = torture_argv(options, node, b.ip)
        processes = []
        if options.one_pod:
            processes.append(a.start(argv, shim=shim_settings(options, node, "both")))
        else:
            share = os.path.join(node.work, "share")
            for pod, role in ((a, "connect"), (b, "listen")):
                processes.append(pod.start([*argv, "--role", role, "--share", share], shim=shim_settings(options, node, role)))
        limit = max(options.seconds, 60) * 10
        kills = driver.disturb(node.agent, processes, choices, options.kill_agent_ms, limit, ABSENCES)
        stats = read_stats(os.path.join(node.work, "stats"))
        for process in processes:
            print(process.output().rstrip()[-6000:])
        stats["agent_kills"] = kills
        print(json.dumps({"shim": stats}))
        problems = check(options, processes, stats)
        if problems and options.log:
            for name in sorted(os.listdir(os.path.join(node.work, "logs"))):
                os.makedirs("/tmp/torture-logs", exist_ok=True)
                with open(os.path.join(node.work, "logs", name), "rb") as source, open(f"/tmp/torture-logs/{name}", "wb") as copy:
                    copy.write(source.read())
            print("logs: /tmp/torture-logs")
        return problems


if __name__ == "__main__":
    sys.exit(driver.main("torture", parse(), run_once))
