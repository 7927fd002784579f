"""One virtual machine: qemu without hardware help, the host's root below a tmpfs, one network card, a port for commands."""

import os
import signal
import subprocess

from commands import Port
from procs import Failure, wait_until
from qmp import Qmp

QEMU = "qemu-system-x86_64"
HERE = os.path.dirname(os.path.abspath(__file__))
SHARE = "/vm"  # where a guest sees the bed's shared folder
MTU = 4200  # holds RDMA's largest payload, 4096, and its headers
MEMORY_MB = 768
CARD = "card"  # qemu's name for the network card
FAULTS = "vm_faults"  # the nftables table of the faults

# Nothing that a guest in software emulation need not do: no mitigations, no self-tests, no calibration against a clock that jumps.
KERNEL_WORDS = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests rcupdate.rcu_expedited=1 tsc=reliable no_timer_check "
    "random.trust_cpu=on net.ifnames=0 loglevel=4"
)


class Machine:
    """Its files are in `folder`, and `share` is the folder that all machines of the bed share with the host.

    The process dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG): a test that is killed leaves no machine.
    """

    def __init__(self, name, number, folder, share, kernel, initrd, other):
        self.name, self.number, self.folder, self.share = name, number, folder, share
        self.address = f"10.77.0.{number}"  # of eth0, which carries RDMA and the pods' routes
        self._kernel, self._initrd = kernel, initrd
        self._other = other  # the number of the machine at the far end of the cable
        self._process = self._port = self._qmp = None

    def _path(self, name):
        return os.path.join(self.folder, name)

    def argv(self):
        cable = os.path.dirname(self.folder)
        words = {
            "name": self.name,
            "boot": os.path.join(HERE, "guest_boot.sh"),
            "modules": self._kernel.modules,
            "address": f"{self.address}/24",
            "mtu": MTU,
        }
        mine, theirs = (os.path.join(cable, f"cable{number}") for number in (self.number, self._other))
        return [
            *("setpriv", "--pdeathsig", "KILL", QEMU),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", self.name),
            # One thread of emulation for the one processor, and a small cache of translations: two machines share two cores.
            *("-accel", "tcg,thread=multi,tb-size=128", "-machine", "q35", "-cpu", "max", "-smp", "1", "-m", str(MEMORY_MB)),
            *("-kernel", self._kernel.image, "-initrd", self._initrd),
            *("-append", " ".join([KERNEL_WORDS, *(f"bed.{key}={value}" for key, value in words.items())])),
            *("-serial", f"file:{self._path('console')}", "-qmp", f"unix:{self._path('qmp')},server=on,wait=off"),
            *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
            *("-fsdev", f"local,id=share,path={self.share},security_model=none"),
            *("-device", "virtio-9p-pci,fsdev=share,mount_tag=share"),
            *("-chardev", f"socket,id=commands,path={self._path('commands')},server=on,wait=off"),
            *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=commands,name=commands"),
            *("-netdev", f"dgram,id=cable,local.type=unix,local.path={mine},remote.type=unix,remote.path={theirs}"),
            *("-device", f"virtio-net-pci,netdev=cable,id={CARD},mac=52:54:00:77:00:{self.number:02x},romfile=,host_mtu={MTU}"),
        ]

    # Life

    def start(self):
        """Begins to boot; wait_ready() is its other half."""
        os.makedirs(self.folder, exist_ok=True)
        for name in ("qmp", "commands"):
            if os.path.exists(self._path(name)):
                os.unlink(self._path(name))
        mine = os.path.join(os.path.dirname(self.folder), f"cable{self.number}")
        if os.path.exists(mine):
            os.unlink(mine)
        with open(self._path("qemu.log"), "wb") as log:
            self._process = subprocess.Popen(
                self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._qmp = Qmp(self._socket("qmp"))
        self._port = Port(self.name, self._socket("commands"))

    def _socket(self, name):
        """qemu's socket of that name, once it listens there."""

        def listens():
            if self._process.poll() is not None:
                raise Failure(f"{self.name}: qemu ended with {self._process.returncode}: {self._log('qemu.log')}")
            with open("/proc/net/unix", encoding="ascii") as stream:
                return any(line.rstrip().endswith(" " + self._path(name)) for line in stream)

        wait_until(listens, f"{self.name}: qemu's socket {name}", timeout=20)
        return self._path(name)

    def wait_ready(self, timeout=90):
        """Until it takes commands. Seconds by the guest's own clock."""
        if not self._port.wait_ready(timeout):
            raise Failure(f"{self.name} does not come up:\n{self._log('console')}\n{self._log('qemu.log')}")
        return self._port.boot_seconds

    def _log(self, name):
        try:
            with open(self._path(name), encoding="utf-8", errors="replace") as stream:
                return stream.read()[-2000:]
        except FileNotFoundError:
            return ""

    @property
    def pid(self):
        """Of qemu."""
        return self._process.pid

    def alive(self):
        return self._process is not None and self._process.poll() is None

    def kill(self):
        """As when the power fails."""
        if self._process is None:
            return
        if self.alive():
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for part in (self._port, self._qmp):
            if part is not None:
                part.close()
        self._port = self._qmp = None

    # Commands

    def start_command(self, argv, **options):
        """commands.Port.start"""
        if self._port is None:
            raise Failure(f"{self.name} is not running")
        return self._port.start(argv, **options)

    def run(self, argv, **options):
        """commands.Port.run"""
        if self._port is None:
            raise Failure(f"{self.name} is not running")
        return self._port.run(argv, **options)

    # Faults. Each lasts until its opposite.

    def plug(self, plugged):
        """Its end of the cable: the guest sees the carrier go and come."""
        self._qmp.ask("set_link", name=CARD, up=plugged)

    def pause(self):
        """Stops its processor and its clocks."""
        self._qmp.ask("stop")

    def resume(self):
        self._qmp.ask("cont")

    def restart(self):
        """After kill(), or instead of it: boots afresh; nothing written inside is left."""
        self.kill()
        self.start()
        return self.wait_ready()

    def lose(self, percent, what=""):
        """Drops so many of a hundred packets that come in by the cable. `what`: nftables words that choose which, as "udp dport 4791"
        (RoCE). 0: none any more. Only this machine's incoming side: one-way loss; both ways need both machines."""
        rules = f"table inet {FAULTS} {{}}\ndelete table inet {FAULTS}\n"
        if percent:
            chosen = f"numgen random mod 100 < {int(percent)}" if percent < 100 else ""
            drop = f"iifname eth0 {what} {chosen} counter drop"
            rules += f"table inet {FAULTS} {{\nchain in {{\ntype filter hook prerouting priority -500\n{drop}\n}}\n}}\n"
        self.run(["nft", "-f", "-"], stdin=rules.encode())

    def disturb(self, *words):
        """tc-netem(8) on what goes out by the cable, as "corrupt", "1%" or "delay", "20ms"; without words: none any more."""
        if words:
            self.run(["tc", "qdisc", "replace", "dev", "eth0", "root", "netem", "limit", "10000", *words])
        else:
            self.run(["tc", "qdisc", "del", "dev", "eth0", "root"], check=False)
