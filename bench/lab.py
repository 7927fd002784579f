"""The bench's pods, servers and load generators. One pod serves on CPU 0, the other asks from CPU 1; every side runs the same programs
over the same veth pair and bridge, only the shim differs."""

import csv
import io
import os
import re
import sys
import time
from dataclasses import dataclass

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "lib"))

from pods import Node  # noqa: E402
from procs import Failure, Process, read_stats  # noqa: E402

SERVER_CPU, CLIENT_CPU = 0, 1

# side -> what the shim is told; False: no shim
SIDES = {
    "tcp": False,
    "vsocket": {},
    "no-agent": {"VSOCKET_AGENT": "/nonexistent/agent.sock"},
    "unix": False,
    "sockmap": False,
}
REDIS_KEY, REDIS_BYTES = "key:__rand_int__", 64  # redis-benchmark's, without -r
PORTS = {side: number for number, side in enumerate(SIDES)}


@dataclass
class Sample:
    value: float
    p99: float | None = None  # in the client's unit of latency
    upgraded: int = 0         # connections that the client's shim counted as accelerated
    agent_share: float = 0.0  # of a CPU time, the agent's part


class Lab:
    """Starts what a row needs once a side, and keeps it until the end."""

    def __init__(self, build, seconds):
        self.node = Node(build)
        self.seconds = seconds  # how long one measurement shall last, about
        self.servers = {}
        self.rates = {}
        self.hogs = []
        self.runs = 0
        self.wrap = {}  # side -> words put before each program of that side

    def __enter__(self):
        self.node.__enter__()
        try:
            self.node.start_agent()
            self.server_pod = self.node.add_pod("server")
            self.client_pod = self.node.add_pod("client")
            # Short connections use up ports: give the client many, and let it use them again after a second (ip-sysctl).
            for name, value in {"ip_local_port_range": "1024 65535", "tcp_tw_reuse": "1"}.items():
                self.client_pod.run(["sysctl", "-qw", f"net.ipv4.{name}={value}"])
        except BaseException:
            self.node.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *details):
        self.compete(False)
        self.node.__exit__(*details)

    def path(self, name):
        return os.path.join(self.node.work, name)

    def shim(self, side, stats=None):
        settings = SIDES[side]
        return settings if settings is False else {**settings, **({"VSOCKET_STATS": stats} if stats else {})}

    def compete(self, wanted):
        """One endless loop on each of the two CPUs, as a neighbour would be."""
        for hog in self.hogs:
            hog.kill()
        self.hogs = []
        if wanted:
            for cpu in (SERVER_CPU, CLIENT_CPU):
                argv = ["taskset", "-c", str(cpu), "sh", "-c", "while :; do :; done"]
                self.hogs.append(Process(argv, self.path("hog.log")))

    def server(self, program, side):
        key = (program, side)
        if key not in self.servers:
            self.servers[key] = getattr(self, f"_start_{program}")(side)
        return self.servers[key]

    def _start_redis(self, side):
        port = 6400 + PORTS[side]
        argv = [*self.wrap.get(side, []), "redis-server", "--port", port, "--save", "", "--appendonly", "no", "--protected-mode", "no"]
        argv += ["--dir", self.node.work]
        if side == "unix":
            argv += ["--unixsocket", self.path("redis.sock")]
        process = self.server_pod.start(argv, shim=self.shim(side), cpu=SERVER_CPU)
        process.wait_listening(port)
        process.port = port
        # What GET rows ask for, or they would measure an answer without a value.
        self.server_pod.run(["redis-cli", "-p", port, "set", REDIS_KEY, "x" * REDIS_BYTES])
        return process

    def _start_sockperf(self, side):
        port = 11200 + PORTS[side]
        argv = ["sockperf", "sr", "--tcp", "-i", self.server_pod.ip, "-p", port]
        process = self.server_pod.start(argv, shim=self.shim(side), cpu=SERVER_CPU)
        process.wait_listening(port)
        process.port = port
        return process

    def _start_iperf3(self, side):
        port = 5300 + PORTS[side]
        process = self.server_pod.start(["iperf3", "-s", "-p", port], shim=self.shim(side), cpu=SERVER_CPU)
        process.wait_listening(port)
        process.port = port
        return process

    def client(self, argv, side, timeout=120):
        """Runs a load generator; returns (its output, connections its shim accelerated, its CPU seconds)."""
        self.runs += 1
        stats = self.path(f"stats-{self.runs}.json")
        before = os.times()
        argv = [*self.wrap.get(side, []), *argv]
        done = self.client_pod.run(argv, shim=self.shim(side, stats), cpu=CLIENT_CPU, timeout=timeout)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return done.stdout, read_stats(stats)["upgraded"], cpu

    def redis(self, side, command, clients=50, pipeline=1, keep=True, requests=None):
        """redis-benchmark for about `self.seconds`: requests a second, p99 in milliseconds."""
        server = self.server("redis", side)
        argv = ["redis-benchmark", "-t", command, "-c", clients, "-P", pipeline, "-d", REDIS_BYTES, "-k", 1 if keep else 0, "--csv"]
        argv += ["-s", self.path("redis.sock")] if side == "unix" else ["-h", self.server_pod.ip, "-p", server.port]
        key = (side, command, clients, pipeline, keep, bool(self.hogs))
        if requests is None:
            if key not in self.rates:
                # First a tenth of a second to learn the pace, then counts that last long enough.
                self.rates[key] = self._redis_rate([*argv, "-n", 5000], side)[0]
                self.rates[key] = self._redis_rate([*argv, "-n", max(2000, int(self.rates[key] * 0.3))], side)[0]
            requests = max(2000, int(self.rates[key] * self.seconds))
        rate, p99, upgraded, cpu = self._redis_rate([*argv, "-n", requests], side)
        self.rates[key] = rate
        self.last = {"requests": requests, "client_cpu": cpu}
        return Sample(rate, p99, upgraded)

    def _redis_rate(self, argv, side):
        output, upgraded, cpu = self.client(argv, side)
        rows = list(csv.DictReader(io.StringIO(output)))
        if not rows:
            raise Failure(f"redis-benchmark said nothing useful: {output[-500:]}")
        return float(rows[-1]["rps"]), float(rows[-1]["p99_latency_ms"]), upgraded, cpu

    def redis_cpu(self, side):
        """CPU seconds of server, client and agent for a million GETs over 50 connections."""
        server = self.server("redis", side)
        self.redis(side, "get")  # warm, and learn the pace
        requests = max(1_000_000, int(self.rates[(side, "get", 50, 1, True, bool(self.hogs))] * self.seconds))
        agent = self.node.agent.process.pid
        before = [cpu_seconds(server.pid), cpu_seconds(agent)]
        sample = self.redis(side, "get", requests=requests)
        used = [cpu_seconds(pid) - start for pid, start in zip((server.pid, agent), before)]
        total = used[0] + used[1] + self.last["client_cpu"]
        return Sample(total / requests * 1e6, None, sample.upgraded, used[1] / total)

    def pingpong(self, side):
        """sockperf ping-pong, 64 bytes: half a round trip in microseconds (median; the mean when competing), p99."""
        server = self.server("sockperf", side)
        argv = ["sockperf", "pp", "--tcp", "-i", self.server_pod.ip, "-p", server.port, "-m", 64, "-t", max(1, round(self.seconds))]
        argv += ["--mps", 5_000_000]  # its own limit, 600,000 messages a second, is below what a ring does
        output, upgraded, _ = self.client(argv, side)
        found = dict(re.findall(r"percentile (\d+\.\d+) =\s*([\d.]+)", output))
        if "50.000" not in found:
            raise Failure(f"sockperf said nothing useful: {output[-500:]}")
        # With neighbours on the CPUs the median meets none of the waits for a time slice; the mean does.
        mean = float(re.search(r"Latency is ([\d.]+) usec", output).group(1))
        return Sample(mean if self.hogs else float(found["50.000"]), float(found["99.000"]), upgraded)

    def bulk(self, side):
        """iperf3, one stream: Gbit/s as the receiver counted."""
        server = self.server("iperf3", side)
        argv = ["iperf3", "-c", self.server_pod.ip, "-p", server.port, "-t", max(1, round(self.seconds)), "-f", "g"]
        output, upgraded, _ = self.client(argv, side)
        match = re.search(r"([\d.]+) Gbits/sec\s+receiver", output)
        if not match:
            raise Failure(f"iperf3 said nothing useful: {output[-500:]}")
        return Sample(float(match.group(1)), None, upgraded)


def cpu_seconds(pid):
    """CPU time of a live process and its threads (proc(5): schedstat counts nanoseconds, stat only ticks)."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="utf-8") as stream:
                total += int(stream.read().split()[0])
        except FileNotFoundError:
            continue
    return total / 1e9


def settle(seconds=0.2):
    """Lets the queues and timers of the last run die away before the next."""
    time.sleep(seconds)
