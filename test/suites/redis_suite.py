"""Redis' own Tcl test suite (Debian's source package) against Debian's redis-server; the Tcl client has the shim too."""

import os
import re

from sources import debian_source
from suite import FAIL, PASS, SKIP, Suite

SHORT = [
    "unit/type/string", "unit/pubsub", "unit/scan", "unit/protocol", "unit/quit", "unit/wait", "unit/networking",
    "integration/replication-2",
]
PROGRAMS = ("redis-server", "redis-cli", "redis-benchmark", "redis-check-aof", "redis-check-rdb", "redis-sentinel")
OUTCOMES = {"ok": PASS, "err": FAIL, "exception": FAIL, "skip": SKIP, "ignore": SKIP}
# Timings and addresses differ from run to run, names of tests must not.
VOLATILE = re.compile(r" \(\d+ ms\)| in tests/\S+$|\d+\.\d+|0x[0-9a-f]+")
# Which replica follows which, and how often, is drawn by lot in these: all of one kind are one test.
DRAWN_BY_LOT = re.compile(r"integration/psync2")


class RedisSuite(Suite):
    name = "redis"

    def prepare(self, context):
        self.tree = debian_source("redis", context.sources)
        for program in PROGRAMS:
            link = os.path.join(self.tree, "src", program)
            if not os.path.lexists(link):
                os.symlink(f"/usr/bin/{program}", link)

    def units(self, short):
        if short:
            return SHORT
        with open(os.path.join(self.tree, "tests", "test_helper.tcl"), encoding="utf-8") as stream:
            listed = re.search(r"set ::all_tests \{(.*?)\}", stream.read(), re.S).group(1).split()
        # Modules are compiled C code of the source tree, which Debian's server does not bring.
        return [unit for unit in listed if not unit.startswith("unit/moduleapi")]

    def run_unit(self, context, unit):
        argv = ["tclsh", "tests/test_helper.tcl", "--single", unit, "--clients", "1", "--timeout", "300"]
        status, output = context.run(argv, cwd=self.tree, timeout=600)
        context.keep(unit, output)
        results = {}
        for word, name in re.findall(r"\[(ok|err|exception|skip|ignore)\]: (.*)", re.sub(r"\x1b\[[0-9;]*m", "", output)):
            key, number = VOLATILE.sub("", name).strip(), 2
            if DRAWN_BY_LOT.match(unit):
                key = re.sub(r"\d+", "N", key)
                results[key] = FAIL if FAIL in (results.get(key), OUTCOMES[word]) else OUTCOMES[word]
                continue
            while key in results:
                key, number = f"{VOLATILE.sub('', name).strip()} #{number}", number + 1
            results[key] = OUTCOMES[word]
        results["(exit status)"] = PASS if status == 0 else FAIL
        return results
