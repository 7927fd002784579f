"""What idle accelerated connections cost: CPU time and memory."""

import os
import sys
import time

from lab import Failure, cpu_seconds
from procs import shared_memory, wait_until

WATCHED_SECONDS = 10
MAX_BYTES_EACH = 64 * 1024
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "idle_pair.py")


def measure_idle(lab, count):
    agent = lab.node.agent
    shim = {"VSOCKET_UPGRADE_AFTER": "0"}
    port = 7777
    server = lab.server_pod.start([sys.executable, PROGRAM, "serve", str(port)], shim=shim)
    server.wait_listening(port)
    client = lab.client_pod.start([sys.executable, PROGRAM, "hold", lab.server_pod.ip, str(port), str(count)], shim=shim)

    def all_on_rings():
        if not client.alive():
            raise Failure(f"the idle client ended: {client.output()[-800:]}")
        rows = [row for row in agent.connections(state="ring") if port in (row["local_port"], row["remote_port"])]
        return len(rows) >= 2 * count and "idle" in client.output()

    try:
        wait_until(all_on_rings, f"{count} accelerated connections", timeout=60, every=0.5)
        time.sleep(1)
        pids = (server.pid, client.pid)
        before = [cpu_seconds(pid) for pid in (*pids, agent.process.pid)]
        time.sleep(WATCHED_SECONDS)
        used = [now - then for now, then in zip([cpu_seconds(pid) for pid in (*pids, agent.process.pid)], before)]
        memory, regions = shared_memory(pids)
    finally:
        client.stop()
        server.stop()
    each = memory / count
    programs, keeper = used[0] + used[1], used[2]
    return {
        "row": "idle",
        "what": f"{count} idle accelerated connections, {WATCHED_SECONDS} s",
        "cpu_programs": programs,
        "cpu_agent": keeper,
        "bytes_each": each,
        "regions": regions,
        "figure": f"{programs * 1000:.1f} ms CPU in the programs, {keeper * 1000:.1f} ms in the agent, {each / 1024:.1f} KiB each, "
        f"{regions} regions",
        "wanted": f"0 CPU in the programs, <= {MAX_BYTES_EACH // 1024} KiB each",
        # One scheduler tick of slack: being looked at by /proc is not free either.
        "reached": programs < 0.001 and each <= MAX_BYTES_EACH,
    }
