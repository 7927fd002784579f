"""The bed: two machines, `a` and `b`, joined by one cable, each with a software RDMA device (rdma_rxe) on it.

    with Bed(build="build/release") as bed:
        print(bed.a.run(["rdma", "link"]).stdout)
        bed.a.plug(False)

A folder in /run, whose name holds the pid of the process that owns the machines, keeps sockets and logs; leaving the `with` removes it,
and the death of that process ends the machines. Needs root.
"""

import os
import re
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import initrd  # noqa: E402
import kernel  # noqa: E402
from machine import SHARE, Machine  # noqa: E402
from procs import Failure  # noqa: E402

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
CACHE = os.path.join(ROOT, "build", "vm")  # the kernel
FOLDER = re.compile(r"^vsvm(\d+)$")


class Bed:
    def __init__(self, build="build/release"):
        self.build = os.path.abspath(build)
        self.folder = f"/run/vsvm{os.getpid()}"
        self.share = os.path.join(self.folder, "share")
        self.machines = {}
        self.up_seconds = None

    @property
    def a(self):
        return self.machines["a"]

    @property
    def b(self):
        return self.machines["b"]

    def __enter__(self):
        # A test that takes too long is sent SIGTERM: leave by the usual way, which cleans up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_):
        self.down()

    def up(self):
        if os.geteuid() != 0:
            raise Failure("the guests read the host's root: this needs root")
        remove_leftovers()
        began = time.monotonic()
        guest_kernel = kernel.prepare(CACHE)
        os.makedirs(self.share)
        disk = os.path.join(self.folder, "initrd")
        with open(disk, "wb") as stream:
            stream.write(initrd.build(guest_kernel))
        for number, name in enumerate("ab", 1):
            self.machines[name] = Machine(name, number, os.path.join(self.folder, name), self.share, guest_kernel, disk, 3 - number)
        for machine in self.machines.values():
            machine.start()
        for machine in self.machines.values():
            machine.wait_ready()
        self.up_seconds = time.monotonic() - began

    def down(self):
        for machine in self.machines.values():
            machine.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def guest_path(self, name):
        """Where the guests see what the host has as `name` in the shared folder."""
        return os.path.join(SHARE, name)

    def put(self, source, name):
        """Copies a file of the host into the shared folder; the path at which guests see it."""
        shutil.copy(source, os.path.join(self.share, name))
        return self.guest_path(name)

    def get(self, name, target):
        """Copies what a guest wrote into the shared folder to a file of the host."""
        shutil.copy(os.path.join(self.share, name), target)

    def plug_all(self, plugged):
        """Cuts and restores the cable as a whole: both ends see it."""
        for machine in self.machines.values():
            machine.plug(plugged)


def remove_leftovers():
    """Folders whose owner is dead; its machines died with it."""
    removed = 0
    for name in os.listdir("/run"):
        match = FOLDER.match(name)
        if match and not _runs(match.group(1)):
            shutil.rmtree(os.path.join("/run", name), ignore_errors=True)
            removed += 1
    return removed


def _runs(pid):
    """Not so when it has ended and its parent has yet to look: then it has no command line any more (proc(5))."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return bool(stream.read(1))
    except FileNotFoundError:
        return False
