"""memcached's own Perl test suite (Debian's source package) against Debian's memcached; the Perl client has the shim too."""

import os
import re

from procs import run
from sources import debian_source
from suite import FAIL, PASS, SKIP, Suite

SHORT = (
    "64bit binary-get bogus-commands cas conn-limits flags incrdecr issue_70 line-lengths multiversioning noreply "
    "stats-conns udp"
).split()
# About the source tree itself (tabs, whitespace, the C unit test), not about a server.
NOT_ABOUT_THE_SERVER = {"t/whitespace.t", "t/00-binary.t"}

# One test for each refusal that it sees, and how many those are depends on who is faster.
COUNT_VARIES = {"t/maxconns.t"}

# The suite gives every server an option that only a build with a system call filter knows; Debian's has none. And it would talk to all
# servers by UNIX sockets, did their help not hide that they can: TCP is what this is about.
SERVER = """\
#!/bin/bash
if [[ "${1:-}" == "-h" ]]; then /usr/bin/memcached -h | grep -v unix-socket; exit; fi
words=()
while [[ $# != 0 ]]; do
  if [[ "$1 ${2:-}" == "-o relaxed_privileges" ]]; then shift; else words+=("$1"); fi
  shift
done
exec /usr/bin/memcached "${words[@]}"
"""


class MemcachedSuite(Suite):
    name = "memcached"

    def prepare(self, context):
        self.tree = debian_source("memcached", context.sources)
        debug = os.path.join(self.tree, "memcached-debug")
        if os.path.lexists(debug):
            os.unlink(debug)  # never write through what may be a link to the system's own program
        with open(debug, "w", encoding="utf-8") as stream:
            stream.write(SERVER)
        os.chmod(debug, 0o755)
        timer = os.path.join(self.tree, "timedrun")
        if not os.path.exists(timer):
            run(["gcc", "-O1", "-o", timer, os.path.join(self.tree, "timedrun.c")])

    def units(self, short):
        present = sorted(f"t/{name}" for name in os.listdir(os.path.join(self.tree, "t")) if name.endswith(".t"))
        if short:
            return [f"t/{name}.t" for name in SHORT if f"t/{name}.t" in present]
        return [unit for unit in present if unit not in NOT_ABOUT_THE_SERVER]

    def run_unit(self, context, unit):
        status, output = context.run(["perl", "-I", "t/lib", unit], cwd=self.tree, timeout=300)
        context.keep(unit, output)
        results = {"(exit status)": PASS if status == 0 else FAIL}
        if re.search(r"^1\.\.0 # SKIP", output, re.M):
            results["(all)"] = SKIP
        if unit in COUNT_VARIES:
            results["(none failed)"] = FAIL if re.search(r"^not ok", output, re.M) else PASS
            return results
        for word, number, directive in re.findall(r"^(ok|not ok) (\d+)[^#\n]*(#\s*(?:skip|todo).*)?$", output, re.M | re.I):
            results[f"{int(number):04}"] = SKIP if directive else PASS if word == "ok" else FAIL
        return results
