"""The initial RAM disk of a guest: busybox, guest_init.sh, and the modules needed to reach the host's root and the network.

The archive is the "newc" form of cpio, as the kernel reads it (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

import os
import shutil
import stat

from procs import Failure

MODULES = (
    "virtio_pci", "virtio_net", "virtio_console",
    "9pnet_virtio", "9p", "overlay",
    "crc32c_intel", "crc32c_generic", "crc32_pclmul", "crc32_generic",  # rxe's checksum
    "rdma_rxe", "ib_uverbs", "rdma_ucm",
)  # fmt: skip
FOLDERS = ("bin", "modules", "proc", "sys", "dev", "host", "written", "root")
INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest_init.sh")


def build(kernel):
    """The archive's bytes."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Failure("busybox is not installed")
    archive = Archive()
    for folder in FOLDERS:
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, _content(busybox))
    archive.add("bin/sh", stat.S_IFLNK | 0o777, b"busybox")
    archive.add("init", stat.S_IFREG | 0o755, _content(INIT))
    files = kernel.module_files(MODULES)
    for path in files:
        if not path.endswith(".ko"):
            raise Failure(f"a compressed module, which busybox cannot load: {path}")
        archive.add("modules/" + os.path.basename(path), stat.S_IFREG | 0o644, _content(path))
    archive.add("modules.list", stat.S_IFREG | 0o644, "\n".join(map(os.path.basename, files)).encode())
    return archive.bytes()


def _content(path):
    with open(path, "rb") as stream:
        return stream.read()


class Archive:
    def __init__(self):
        self._parts = []
        self._count = 0

    def add(self, name, mode, content=b""):
        self._count += 1
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device of the file (2), device that it stands for (2), length of the name, checksum
        fields = (self._count, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        self._parts.append(_padded(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded))
        self._parts.append(_padded(content))

    def bytes(self):
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def _padded(data):
    return data + bytes(-len(data) % 4)
