#!/usr/bin/env python3
"""A hostile pod abuses its channels to an honest server; the honest programs must not notice beyond those connections.

Passes when the server ends by itself with 0, its honest client saw every answer in time, the hostile pod was really granted channels, and
the agent lives and holds nothing afterwards.
"""

import json
import os
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import driver  # noqa: E402
from pods import Node  # noqa: E402
from procs import Failure, first_ended, read_stats, wait_until, wait_written  # noqa: E402


def parse():
    parser = driver.option_parser(__doc__)
    parser.add_argument("--iterations", type=int, default=1500, help="hostile connections, over all ways of serving")
    parser.add_argument("--micros", type=int, default=3000, help="how long each is abused")
    parser.add_argument("--first", type=int, default=0, help="the first iteration (to repeat one)")
    parser.add_argument("--serve", default="poll,epoll,threads", help="how the honest server waits")
    parser.add_argument("--preload", default="", help="put before the shim in the honest programs' LD_PRELOAD, e.g. libasan.so.8")
    return parser.parse_args()


def shim_settings(node, options):
    settings = {"VSOCKET_UPGRADE_AFTER": "0", "VSOCKET_STATS": os.path.join(node.work, "stats")}
    if options.preload:
        settings["LD_PRELOAD"] = f"{options.preload}:{node.agent.library}"
    return settings


def one_way(node, options, pods, how, iterations):
    """The problems that serving in the way `how` had."""
    server_pod, client_pod, hostile_pod = pods
    program = os.path.join(node.build, "bin", "honest")
    port_file = os.path.join(node.work, f"port-{how}")
    settings = shim_settings(node, options)
    server = server_pod.start([program, "serve", server_pod.ip, port_file, how], shim=settings)
    wait_written(lambda: os.path.exists(port_file), "the honest server's port", node.work, server)
    with open(port_file, encoding="utf-8") as stream:
        port = stream.read().strip()
    client = client_pod.start([program, "call", server_pod.ip, port], shim=settings)
    hostile = hostile_pod.start([
        os.path.join(node.system, "bin", "hostile"), "--agent", os.path.join(hostile_pod.folder, "agent.sock"),
        "--address", server_pod.ip, "--port", port, "--seed", options.seed, "--iterations", iterations, "--micros", options.micros,
        "--first", options.first])
    if not first_ended([hostile, server, client], timeout=60 + iterations):
        raise Failure(f"{how}: the hostile program does not end")
    problems = []
    if not server.alive():
        problems.append(f"the honest server ended with {server.popen.returncode} while it was attacked")
    if not client.alive():
        problems.append(f"the honest client ended with {client.popen.returncode}: {client.output().strip()[-300:]}")
    hostile.stop()
    if client.alive():
        client.popen.send_signal(signal.SIGTERM)
    for process, name in ((client, "client"), (server, "server")):
        try:
            status = process.wait(15)
            if status != 0 and not problems:
                problems.append(f"the honest {name} ended with {status}: {process.output().strip()[-300:]}")
        except subprocess.TimeoutExpired:
            problems.append(f"the honest {name} hangs (pid {process.pid})")
    print(f"{how}: hostile {hostile.output().strip()[-300:]} honest {client.output().strip()[-300:]}")
    try:
        report = json.loads(hostile.output().strip().splitlines()[-1])
    except (IndexError, ValueError):
        report = {}
    if not problems and (report.get("granted", 0) < iterations / 10 or report.get("went_up", 0) == 0):
        problems.append("the hostile pod was hardly granted a channel: nothing was tested")
    return [f"{how}: {problem}" for problem in problems]


def run_once(options):
    ways = options.serve.split(",")
    problems = []
    with Node(build=options.build) as node:
        node.start_agent()
        pods = [node.add_pod(name, labels={"app": name}) for name in ("server", "client", "hostile")]
        for how in ways:
            problems += one_way(node, options, pods, how, options.iterations // len(ways))
        if not node.agent.alive():
            problems.append("the agent died")
        else:
            try:
                wait_until(lambda: node.agent.ask("status").get("channels", 0) == 0, "the agent's channels to go", timeout=15, every=0.1)
            except Failure as failure:
                problems.append(str(failure))
        stats = read_stats(os.path.join(node.work, "stats"))
        print(json.dumps({"honest": stats}))
        if stats["ring_rx"] == 0:
            problems.append("the honest programs moved nothing over rings")
    return problems


if __name__ == "__main__":
    sys.exit(driver.main("hostile", parse(), run_once))
