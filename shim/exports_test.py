#!/usr/bin/env python3
"""libvsocket.so goes into programs of any libc: it exports what calls.def lists and nothing else, needs no library and no symbol version,
and uses only functions that glibc 2.17 and musl 1.2.3 both have. Run in a program of either.

    exports_test.py LIBRARY CALLS_DEF LOOPBACK_C
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

# In glibc 2.17 without a symbol version newer than its base one, and in musl 1.2.3. A function is added here after a look at both.
ALLOWED = {"__errno_location", "clock_gettime", "getenv", "memcmp", "memcpy", "memmove", "memset", "strchr", "strcmp", "strlen"}
# May be missing (a weak reference): on glibc before 2.34 dlsym is libdl's, and not every program has that; the last is glibc 2.32's.
ALLOWED_WEAK = {"dlsym", "dl_iterate_phdr", "__libc_single_threaded"}

LIBRARY, CALLS, LOOPBACK = sys.argv[1:4]


def output_of(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def symbols(kind):
    """{(letter, name)} of the dynamic symbol table."""
    return {tuple(line.split()[-2:]) for line in output_of("nm", "-D", kind, LIBRARY).splitlines()}


class Exports(unittest.TestCase):
    def test_exports_are_the_rows(self):
        with open(CALLS, encoding="utf-8") as stream:
            rows = re.findall(r"^VSOCKET_CALL\((\w+),", stream.read(), re.M)
        self.assertEqual(len(rows), len(set(rows)), "a row is there twice")
        self.assertEqual({name for _, name in symbols("--defined-only")}, set(rows))

    def test_needs_no_library(self):
        dynamic = output_of("readelf", "-dW", LIBRARY)
        self.assertNotIn("NEEDED", dynamic)
        self.assertNotIn("TEXTREL", dynamic)

    def test_needs_no_symbol_version(self):
        versions = output_of("readelf", "-VW", LIBRARY)
        self.assertNotIn("needs section", versions)
        self.assertEqual([name for _, name in symbols("--undefined-only") if "@" in name], [])

    def test_uses_what_every_libc_has(self):
        undefined = symbols("--undefined-only")
        self.assertEqual({name for letter, name in undefined if letter == "U"} - ALLOWED, set())
        self.assertEqual({name for letter, name in undefined if letter == "w"} - ALLOWED_WEAK, set())

    def run_with(self, compiler):
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "loopback")
            stats = os.path.join(folder, "stats")
            subprocess.run([compiler, "-O1", "-D_GNU_SOURCE", "-o", program, LOOPBACK], check=True)
            subprocess.run([program], check=True, timeout=30)
            environment = dict(os.environ, LD_PRELOAD=LIBRARY, VSOCKET_STATS=stats, VSOCKET_AGENT="/nonexistent")
            done = subprocess.run([program], env=environment, timeout=30, capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            with open(stats, encoding="utf-8") as stream:
                lines = [json.loads(line) for line in stream]
            # The interposers were really in the way: both ends are counted, and the bytes, by the child that sent them and by the parent
            # that shares the connection.
            self.assertEqual(sorted((line["connections"], line["tcp_tx"], line["tcp_rx"]) for line in lines), [(0, 5, 0), (2, 5, 5)])

    def test_runs_on_glibc(self):
        self.run_with("gcc")

    def test_runs_on_musl(self):
        self.run_with("musl-gcc")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
