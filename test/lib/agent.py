"""The node agent and vsocketctl as a test sees them."""

import json
import os

from procs import Failure, Process, run, wait_written


class Agent:
    """One node's agent. Its state folder outlives it, so that a restarted agent finds what a killed one left."""

    def __init__(self, build, work, prefix=(), flags=(), shim_build=None):
        self.program = os.path.join(build, "bin", "vsocket-agent")
        self.ctl_program = os.path.join(build, "bin", "vsocketctl")
        self.library = os.path.join(shim_build or build, "lib", "libvsocket.so")
        self.work = work
        self.prefix = list(prefix)
        self.flags = list(flags)
        self.cluster = os.path.join(work, "cluster")
        self.socket = os.path.join(work, "rpc.sock")
        self.process = None
        self.patience = 15  # seconds that it may take to be ready
        os.makedirs(self.cluster, exist_ok=True)

    def argv(self):
        return [
            *self.prefix,
            self.program,
            f"--cluster-dir={self.cluster}",
            f"--run-dir={os.path.join(self.work, 'pods')}",
            f"--state-dir={os.path.join(self.work, 'state')}",
            f"--spool-dir={os.path.join(self.work, 'spool')}",
            f"--rpc-socket={self.socket}",
            f"--shim-library={self.library}",
            # Not what runs on the machine that the test runs on.
            f"--cni-conf-dir={os.path.join(self.work, 'net.d')}",
            *self.flags,
        ]

    def start(self):
        """Starts it and waits until it says that it is ready."""
        if not os.access(self.program, os.X_OK):
            raise Failure(f"{self.program} is not built")
        self.process = Process(self.argv(), os.path.join(self.work, "agent.log"))
        wait_written(self._ready, "the agent to be ready", self.work, self.process, timeout=self.patience)
        return self

    def _ready(self):
        if not self.process.has_said("agent ready"):
            return False
        done = self.ctl("status", check=False)
        return done.returncode == 0 and json.loads(done.stdout).get("ready", False)

    def kill(self):
        self.process.kill()

    def stop(self):
        return self.process.stop() if self.process else None

    def alive(self):
        return self.process is not None and self.process.alive()

    def ctl(self, *words, as_json=True, check=True):
        argv = [self.ctl_program, "--agent-socket", self.socket, *words]
        if as_json:
            argv += ["-o", "json"]
        return run(argv, check=check)

    def ask(self, *words):
        """The parsed JSON answer of vsocketctl."""
        return json.loads(self.ctl(*words).stdout)

    def connections(self, **wanted):
        """Connections as vsocketctl lists them, those whose members equal `wanted`."""
        return [row for row in self.ask("connections")["connections"] if all(row.get(key) == value for key, value in wanted.items())]
