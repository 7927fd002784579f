"""What a suite is: units that run one by one, each giving results {test: outcome}."""

import os
import re
import subprocess
from dataclasses import dataclass

from pods import plain_environment

PASS, FAIL, SKIP = "pass", "fail", "skip"


@dataclass
class Context:
    """Where a unit runs. `shim` is False or the VSOCKET_* settings of this way."""

    node: object
    pod: object
    peer: object
    shim: object
    work: str     # a folder of its own, kept for the suite
    sources: str  # where fetched sources are kept
    second: bool = False  # the unit runs again because a test of it failed

    def run(self, argv, pod=None, cwd=None, env=None, timeout=300):
        """(exit status, output); a program that takes too long is killed and has status None."""
        pod = pod or self.pod
        try:
            done = subprocess.run(
                pod.command(argv, self.shim), env=plain_environment(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=timeout, check=False,
            )
        except subprocess.TimeoutExpired as late:
            return None, (late.stdout or b"").decode("utf-8", "replace")
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def keep(self, name, text):
        """Keeps a unit's output; that of a second try beside that of the first, which tells what went wrong."""
        name += ".second" if self.second else ""
        with open(os.path.join(self.work, re.sub(r"[^A-Za-z0-9_.-]", "_", name) + ".log"), "w", encoding="utf-8") as stream:
            stream.write(text)


class Suite:
    name = ""
    must_accelerate = True  # the third way shows connections and bytes on rings

    def prepare(self, context):
        """Once, before the first way."""

    def begin(self, context):
        """Before each way; `end` follows it whatever happens."""

    def end(self, context):
        pass

    def units(self, short):
        raise NotImplementedError

    def run_unit(self, context, unit):
        """{test name: PASS, FAIL or SKIP}"""
        raise NotImplementedError
