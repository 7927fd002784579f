"""Builds with a sanitizer: where their programs report to, and what they have reported.

A build is known by its CMakeCache.txt. Reports go to files, because the process that one is about may be a child of a child, may have its
output elsewhere, may be killed before it has an exit status, or ends well all the same. Beside ASan, UBSan writes to standard error
whatever it is told: in the shim it traps instead (shim/CMakeLists.txt), and what the programs say is searched.
"""

import os
import re


def sanitizers_of(build):
    """"address,undefined", "thread", or "" for an ordinary build."""
    try:
        with open(os.path.join(build, "CMakeCache.txt"), encoding="utf-8") as cache:
            found = re.search(r"^VSOCKET_SANITIZE:\w+=(.*)$", cache.read(), re.MULTILINE)
    except FileNotFoundError:
        return ""
    return found.group(1) if found else ""


def system_build(build):
    """The build of what is not under test: agent, CNI plugin, vsocketctl. For a sanitized one that is `release` beside it: gRPC and
    protobuf are not sanitized, so TSan would report their innards."""
    path = os.path.abspath(build)
    return os.path.join(os.path.dirname(path), "release") if sanitizers_of(build) else path


class Reports:
    """What the sanitized programs of one run report, in a folder of its own."""

    def __init__(self, build, folder):
        self.sanitizers = sanitizers_of(build)
        self.folder = folder
        self.said = []
        if self.sanitizers:
            os.makedirs(folder)

    def environment(self):
        """The variables that a program needs; none for an ordinary build."""
        if not self.sanitizers:
            return {}
        log = f"log_path={self.folder}/report"
        return {
            # The runtime comes behind the shim, so that what the shim finds behind itself are the runtime's interceptors.
            "ASAN_OPTIONS": f"{log}:verify_asan_link_order=0:handle_sigill=1:detect_stack_use_after_return=1:strict_string_checks=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            # Children of processes with threads start threads too, and are blamed for not joining their parent's. A report is as good when
            # the program goes on, and more may come.
            "TSAN_OPTIONS": f"{log}:die_after_fork=0:report_thread_leaks=0:halt_on_error=0:history_size=4",
        }

    def search(self, output):
        """What a program has said."""
        if self.sanitizers and "runtime error:" in output:
            self.said.append(output[max(0, output.index("runtime error:") - 200) :][:4000])

    def text(self):
        """All reports so far; empty when there is none."""
        if not self.sanitizers:
            return ""
        texts = list(self.said)
        for name in sorted(os.listdir(self.folder)):
            with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as stream:
                texts.append(f"-- {name}\n{stream.read()}")
        return "\n".join(texts)
