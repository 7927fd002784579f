#!/usr/bin/env python3
"""The guests' kernel: Debian's own, fetched with apt-get and unpacked into a folder; nothing of it is installed.

usage: kernel.py FOLDER, to have it ready before it is needed.
"""

import gzip
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from procs import Failure, run  # noqa: E402

META_PACKAGE = "linux-image-amd64"  # depends on the newest kernel of this Debian

# Linux' boot protocol (Documentation/arch/x86/boot.rst): where the header of a bzImage says how many sectors come before the protected-mode
# code, and where in that the compressed kernel is. The compressed kernel's last four bytes are its length when uncompressed.
SETUP_SECTORS, PAYLOAD_OFFSET = 0x1F1, 0x248
SECTOR = 512


class Kernel:
    """An unpacked kernel: `image`, an ELF file that qemu starts directly, and `modules`, what belongs at /lib/modules."""

    def __init__(self, folder):
        self.release = os.path.basename(folder).removeprefix("kernel-")
        self.image = os.path.join(folder, "vmlinux")
        self.modules = os.path.join(folder, "lib", "modules")

    def module_files(self, names):
        """The files of these modules and of all that they need, in the order in which they can be loaded."""
        top = os.path.join(self.modules, self.release)
        needs = {}
        with open(os.path.join(top, "modules.dep"), encoding="ascii") as stream:
            for line in stream:
                path, _, others = line.partition(":")
                needs[_module_name(path)] = (path, others.split())
        files = []
        for name in names:
            if name not in needs:
                continue  # built in
            path, others = needs[name]
            for one in [*reversed(others), path]:
                if (full := os.path.join(top, one)) not in files:
                    files.append(full)
        return files


def _module_name(path):
    return os.path.basename(path).partition(".ko")[0].replace("-", "_")


def prepare(folder):
    """The kernel in `folder`, fetched and unpacked when it is not there yet."""
    os.makedirs(folder, exist_ok=True)
    ready = sorted(name for name in os.listdir(folder) if name.startswith("kernel-") and not name.endswith(".part"))
    if ready:
        return Kernel(os.path.join(folder, ready[-1]))
    package = _newest_package()
    target = os.path.join(folder, "kernel-" + package.removeprefix("linux-image-"))
    with tempfile.TemporaryDirectory(dir=folder, suffix=".part") as work:
        os.chmod(work, 0o755)
        run(["apt-get", "-q", "download", package], cwd=work, timeout=300)
        archive = next(name for name in os.listdir(work) if name.endswith(".deb"))
        unpacked = os.path.join(work, "unpacked")
        run(["dpkg", "-x", os.path.join(work, archive), unpacked], timeout=120)
        release = Kernel(target).release
        run(["depmod", "-b", unpacked, release])
        with open(os.path.join(unpacked, "boot", "vmlinuz-" + release), "rb") as stream:
            image = uncompressed(stream.read())
        with open(os.path.join(unpacked, "vmlinux"), "wb") as stream:
            stream.write(image)
        shutil.rmtree(os.path.join(unpacked, "boot"))
        os.rename(unpacked, target)
    return Kernel(target)


def _newest_package():
    for attempt in (1, 2):
        done = run(["apt-cache", "depends", "--important", META_PACKAGE], check=False)
        match = re.search(r"Depends: (linux-image-\S+)", done.stdout)
        if match:
            return match.group(1)
        if attempt == 1:
            run(["apt-get", "-q", "update"], timeout=300)
    raise Failure(f"apt knows no {META_PACKAGE}: {done.stderr.strip()}")


def uncompressed(bzimage):
    """The ELF image in a bzImage: qemu starts it without the slow decompression in the guest."""
    start = (bzimage[SETUP_SECTORS] + 1) * SECTOR
    offset, length = struct.unpack_from("<II", bzimage, PAYLOAD_OFFSET)
    payload = bzimage[start + offset : start + offset + length]
    if payload.startswith(b"\xfd7zXZ\0"):
        image = lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload)
    elif payload.startswith(b"\x1f\x8b"):
        image = gzip.decompress(payload[:-4])
    elif payload.startswith(b"\x28\xb5\x2f\xfd"):
        image = subprocess.run(["zstd", "-dcq"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    else:
        raise Failure(f"a kernel compressed in an unknown way: {payload[:6].hex()}")
    if not image.startswith(b"\x7fELF"):
        raise Failure("the kernel is no ELF file")
    return image


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(f"guest kernel {prepare(sys.argv[1]).release}")
    except Failure as failure:
        sys.exit(f"kernel.py: {failure}")
