"""Processes of a test: started, watched and ended one by one, by pid. Nothing is ever killed by name."""

import json
import os
import signal
import subprocess
import time


class Failure(Exception):
    """Something that the harness needs did not happen; the message is for people."""


def wait_until(condition, what, timeout=10.0, every=0.01):
    """Polls `condition` until it is true and returns its value. Raises Failure naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {timeout:g} s")
        time.sleep(every)


def run(argv, **options):
    """subprocess.run with text output captured; raises Failure with what it said when it fails, unless check=False."""
    check = options.pop("check", True)
    options.setdefault("timeout", 60)
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, **options)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, argv))}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done


class Process:
    """One running program. Its output goes to `log`, a file."""

    def __init__(self, argv, log, env=None, cwd=None, stdin=subprocess.DEVNULL):
        self.argv = [str(word) for word in argv]
        self.log = log
        with open(log, "ab") as output:
            self.popen = subprocess.Popen(self.argv, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd)

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def wait(self, timeout=None):
        return self.popen.wait(timeout)

    def kill(self):
        """SIGKILL, and wait."""
        if self.alive():
            self.popen.kill()
        self.popen.wait()

    def stop(self, timeout=5.0):
        """SIGTERM, then SIGKILL when that does not help. Returns the exit status."""
        if self.alive():
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.popen.wait()

    def wait_listening(self, port, timeout=10.0):
        """Until something in this process' network namespace listens on TCP `port`."""

        def listening():
            if not self.alive():
                raise Failure(f"{self.argv[0]} ended with {self.popen.returncode} before it listened: {self.output()[-1500:]}")
            return port in listening_ports(self.pid)

        wait_until(listening, f"port {port} of {self.argv[0]}", timeout)
        return self

    def cpu_ticks(self):
        """User + system time of this process and its threads, in clock ticks (proc(5), stat fields 14 and 15)."""
        return cpu_ticks(self.pid)


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def listening_ports(pid):
    ports = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="utf-8") as stream:
                rows = stream.read().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A":
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def read_stats(path):
    """The sum of what VSOCKET_STATS collected, one line a process; `processes` counts them."""
    counters = ("connections", "upgraded", "ring_tx", "ring_rx", "tcp_tx", "tcp_rx", "downs")
    total = {"processes": 0, **dict.fromkeys(counters, 0), "reasons": {}}
    if not os.path.exists(path):
        return total
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            if not line.strip():
                continue
            entry = json.loads(line)
            total["processes"] += 1
            for key in counters:
                total[key] += entry.get(key, 0)
            for reason, count in entry.get("reasons", {}).items():
                total["reasons"][reason] = total["reasons"].get(reason, 0) + count
    return total
