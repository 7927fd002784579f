"""Test suites that Debian ships only in source packages: fetched once into build/sources, with a private apt configuration, so that the
machine's own list of sources stays as it is."""

import glob
import os

from procs import Failure, run

MIRRORS = """\
deb-src http://deb.debian.org/debian bookworm main
deb-src http://deb.debian.org/debian bookworm-updates main
deb-src http://deb.debian.org/debian-security bookworm-security main
"""


def debian_source(package, folder):
    """The unpacked source of a Debian 12 package; `folder` keeps it between runs. Raises Failure when it cannot be had."""
    package_folder = os.path.join(folder, package)
    found = _unpacked(package_folder)
    if found:
        return found
    os.makedirs(package_folder, exist_ok=True)
    lists = os.path.join(folder, "lists")
    os.makedirs(os.path.join(lists, "partial"), exist_ok=True)
    sources = os.path.join(folder, "sources.list")
    with open(sources, "w", encoding="utf-8") as stream:
        stream.write(MIRRORS)
    options = ["-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=/dev/null", "-o", f"Dir::State::lists={lists}"]
    options += ["-o", "APT::Sandbox::User=root", "-q"]
    try:
        run(["apt-get", *options, "update"], timeout=180)
        run(["apt-get", *options, "source", package], cwd=package_folder, timeout=300)
    except Failure as failure:
        raise Failure(f"Debian's source package {package} cannot be fetched, so its test suite cannot run: {failure}") from failure
    found = _unpacked(package_folder)
    if not found:
        raise Failure(f"apt-get source {package} left nothing unpacked in {package_folder}")
    return found


def _unpacked(package_folder):
    folders = [path for path in glob.glob(os.path.join(package_folder, "*")) if os.path.isdir(os.path.join(path, "debian"))]
    return folders[0] if folders else None
