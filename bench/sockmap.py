"""Loads bench/sockmap.bpf.c and lets the "sockmap" side of the lab run under it."""

import json
import os
import shutil
import sys

from lab import Failure
from procs import run

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sockmap.bpf.c")
ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


def bpftool(*words):
    # In /usr/sbin, which not every PATH holds.
    return run([shutil.which("bpftool") or "/usr/sbin/bpftool", *words])


def cgroup2_mount():
    with open("/proc/mounts", encoding="utf-8") as stream:
        for line in stream:
            fields = line.split()
            if fields[2] == "cgroup2":
                return fields[1]
    raise Failure("no cgroup2 hierarchy is mounted: the sockmap rows need one")


class Sockmap:
    """Programs and maps live as long as the `with`. Does nothing when not wanted."""

    def __init__(self, lab, wanted):
        self.lab, self.wanted = lab, wanted

    def __enter__(self):
        if not self.wanted:
            return self
        self.pins = self.lab.path("bpf")
        self.cgroup = os.path.join(cgroup2_mount(), self.lab.node.prefix)
        os.makedirs(self.pins)
        os.makedirs(self.cgroup)
        try:
            self._load()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        self.lab.wrap["sockmap"] = ["sh", "-c", ENTER, self.cgroup]
        return self

    def _load(self):
        program = self.lab.path("sockmap.bpf.o")
        # Debian keeps asm/types.h in the multiarch folder, where the bpf target does not look.
        multiarch = run(["gcc", "-print-multiarch"]).stdout.strip()
        run(["clang", "-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-I", f"/usr/include/{multiarch}", "-c", SOURCE, "-o", program])
        run(["mount", "-t", "bpf", "none", self.pins])
        bpftool("prog", "loadall", program, f"{self.pins}/programs", "pinmaps", f"{self.pins}/maps")
        bpftool("cgroup", "attach", self.cgroup, "cgroup_sock_ops", "pinned", f"{self.pins}/programs/remember_end")
        bpftool("prog", "attach", "pinned", f"{self.pins}/programs/redirect_message", "sk_msg_verdict", "pinned", f"{self.pins}/maps/ends")

    def redirected(self):
        """Messages that took the short path so far."""
        rows = json.loads(bpftool("-j", "map", "dump", "pinned", f"{self.pins}/maps/redirected").stdout)
        return sum(row.get("formatted", {}).get("value", 0) for row in rows)

    def __exit__(self, kind, value, trace):
        if not self.wanted:
            return
        count = None
        if kind is None:
            count = self.redirected()
        server = self.lab.servers.pop(("redis", "sockmap"), None)
        if server:
            server.stop()
        run(["umount", self.pins], check=False)
        os.rmdir(self.cgroup)
        if count == 0:
            raise Failure("the sockmap redirected nothing: its rows compare with plain TCP")
