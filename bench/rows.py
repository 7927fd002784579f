"""The rows of the table: what is measured, in which unit, and what is wanted."""

from dataclasses import dataclass, replace
from typing import Callable


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    unit: str
    higher_is_better: bool
    target: float  # the ratio wanted, always "times better than the other side"
    measure: Callable  # (lab, side) -> Sample
    side: str = "vsocket"
    against: str = "tcp"
    compete: bool = False
    must_upgrade: bool = True

    def ratio(self, ours, theirs):
        """How many times better `ours` is."""
        if self.higher_is_better:
            return ours / theirs if theirs else float("inf")
        return theirs / ours if ours else float("inf")


def _redis(command, **options):
    return lambda lab, side: lab.redis(side, command, **options)


def _redis_cpu(lab, side):
    return lab.redis_cpu(side)


PLAIN = [
    Row("pingpong", "half a round trip of 64 B (sockperf ping-pong), median", "us", False, 40, lambda lab, side: lab.pingpong(side)),
    Row("redis50-get", "Redis GET, 50 connections, 64 B", "req/s", True, 15, _redis("get")),
    Row("redis50-set", "Redis SET, 50 connections, 64 B", "req/s", True, 15, _redis("set")),
    Row("redis1-get", "Redis GET, 1 connection", "req/s", True, 30, _redis("get", clients=1)),
    Row("redis1-set", "Redis SET, 1 connection", "req/s", True, 30, _redis("set", clients=1)),
    Row("redis-pipe-get", "Redis GET, 50 connections, pipeline 16", "req/s", True, 2.5, _redis("get", pipeline=16)),
    Row("redis-pipe-set", "Redis SET, 50 connections, pipeline 16", "req/s", True, 2.5, _redis("set", pipeline=16)),
    Row("bulk", "one bulk stream (iperf3)", "Gbit/s", True, 10, lambda lab, side: lab.bulk(side)),
    Row("cpu", "CPU time of both processes and the agent, a million GETs, 50 connections", "s", False, 8, _redis_cpu),
    Row(
        "short", "short connections (connect, one GET, close), 50 at a time", "req/s", True, 0.97, _redis("get", keep=False),
        must_upgrade=False,
    ),
    Row(
        "no-agent", "shim loaded, no agent: Redis GET, 50 connections", "req/s", True, 0.97, _redis("get"), side="no-agent",
        must_upgrade=False,
    ),
    Row(
        "no-agent-rtt", "shim loaded, no agent: half a round trip of 64 B", "us", False, 0.97, lambda lab, side: lab.pingpong(side),
        side="no-agent", must_upgrade=False,
    ),
]


def _competing(row):
    title = row.title.replace(", median", ", mean") + "; both CPUs contested"
    return replace(row, name=row.name + "+busy", title=title, target=1.0, compete=True)


BUSY = [_competing(row) for row in PLAIN]

PEERS = [
    Row("unix-get", "Redis GET, 50 connections, against a UNIX socket", "req/s", True, 8, _redis("get"), against="unix"),
    Row("unix-set", "Redis SET, 50 connections, against a UNIX socket", "req/s", True, 8, _redis("set"), against="unix"),
    Row("sockmap-get", "Redis GET, 50 connections, against a BPF sockmap redirect", "req/s", True, 8, _redis("get"), against="sockmap"),
    Row("sockmap-set", "Redis SET, 50 connections, against a BPF sockmap redirect", "req/s", True, 8, _redis("set"), against="sockmap"),
]
