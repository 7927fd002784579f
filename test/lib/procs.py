"""Processes of a test: started, watched and ended one by one, by pid. Nothing is ever killed by name."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time

from events import Deadline, FolderChanges, ProcessEnd, wait_readable


class Failure(Exception):
    """Something that the harness needs did not happen; the message is for people."""


def wait_until(condition, what, timeout=10.0, every=0.01):
    """Looks at `condition` again and again until it is true and returns its value. Raises Failure naming `what` after `timeout` seconds.

    For what nothing announces: tables in /proc, answers of an agent. What has an event is waited for by it: Process.wait, first_ended,
    all_ended, wait_written.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {timeout:g} s")
        time.sleep(every)


def first_ended(processes, timeout):
    """Waits until one of `processes` ends. Those that have ended; an empty list after `timeout` seconds."""
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(contextlib.closing(ProcessEnd(process.pid))) for process in processes if process.alive()]
        if len(ends) == len(processes):
            wait_readable(ends, timeout)
    return [process for process in processes if not process.alive()]


def all_ended(processes, timeout):
    """Waits until all of `processes` have ended. False after `timeout` seconds."""
    deadline = Deadline(timeout)
    return all(first_ended([process], deadline.left()) for process in processes)


def wait_written(condition, what, folder, process, timeout=10.0):
    """Waits for `condition`, which becomes true by a file of `folder` that `process` makes, renames or writes, and returns its value.

    Raises Failure naming `what` when the process ends without, and after `timeout` seconds.
    """
    deadline = Deadline(timeout)
    # Watched before the first look: nothing is missed in between.
    with contextlib.closing(FolderChanges(folder)) as changes:
        while not (value := condition()):
            if not process.alive():
                raise Failure(f"{what}: {process.argv[0]} ended with {process.popen.returncode}: {process.output()[-2000:]}")
            with contextlib.closing(ProcessEnd(process.pid)) as end:
                if not wait_readable([changes, end], deadline.left()):
                    raise Failure(f"{what}: not within {timeout:g} s")
            changes.forget()
        return value


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
            self._log_start = output.tell()  # an earlier process may have written before it
            self.popen = subprocess.Popen(self.argv, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd)

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def has_said(self, text):
        """Whether `text` is in what this process, not an earlier one with the same log, has written."""
        with open(self.log, "rb") as stream:
            stream.seek(self._log_start)
            return text.encode() in stream.read()

    def wait(self, timeout=None):
        """The exit status. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        if timeout is not None and not first_ended([self], timeout):
            raise subprocess.TimeoutExpired(self.argv, timeout)
        return self.popen.wait()

    def kill(self):
        """SIGKILL, and wait."""
        if self.alive():
            self.popen.kill()
        self.popen.wait()

    def stop(self, timeout=5.0):
        """SIGTERM, then SIGKILL when that does not help. Returns the exit status."""
        if self.alive():
            self.popen.send_signal(signal.SIGTERM)
            if not first_ended([self], timeout):
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


def shared_memory(pids):
    """Bytes allocated in the memfds that these processes map, each counted once (proc(5): map_files; stat(2): st_blocks)."""
    seen = {}
    for pid in pids:
        folder = f"/proc/{pid}/map_files"
        for name in os.listdir(folder):
            try:
                path = os.path.join(folder, name)
                if not re.match(r"/memfd:", os.readlink(path)):
                    continue
                status = os.stat(path)
                seen[(status.st_dev, status.st_ino)] = status.st_blocks * 512
            except FileNotFoundError:
                continue
    return sum(seen.values()), len(seen)


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
                if entry.get(key, 0) >= 1 << 63:
                    raise Failure(f"a counter that has fallen below zero: {line.strip()}")
                total[key] += entry.get(key, 0)
            if any(count >= 1 << 63 for count in entry.get("reasons", {}).values()):
                raise Failure(f"a reason that has fallen below zero: {line.strip()}")
            for reason, count in entry.get("reasons", {}).items():
                total["reasons"][reason] = total["reasons"].get(reason, 0) + count
    return total
