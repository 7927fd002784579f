#!/usr/bin/env python3
"""The tidy rules are tested by planting one violation at a time in a small tree and seeing it caught, and only it."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import text_rules  # noqa: E402
import tidy  # noqa: E402
from tree import Tree  # noqa: E402

HEADER = "#pragma once\n"

CLEAN = {
    "base/result.h": HEADER + "#include <cstdint>\n",
    "channel/ring.h": HEADER + '#include "base/result.h"\n',
    "channel/reason.h": HEADER + '#define R(X) \\\n  X(kNone, 0, "fine") \\\n  X(kPolicy, 5, "no")\n',
    "shim/shim.cc": '#include "channel/ring.h"\nconst char* const kName = "VSOCKET_LOG";\n',
    "node-agent/model/pod.h": HEADER + '#include "base/result.h"\n',
    "node-agent/policy/policy.h": HEADER + '#include "node-agent/model/pod.h"\n',
    "node-agent/rpc/service.cc": '#include "vsocket/v1/agent.grpc.pb.h"\n#include <grpcpp/server.h>\n',
    "test/tool/plan.h": HEADER + "struct plan { _Atomic int turn; };\n",
    "test/tool/plan.c": '#include "test/tool/plan.h"\n',
    "node-agent/transport/verbs_device.cc": "#include <infiniband/verbs.h>\n",
    "node-agent/main.cc": '#include "node-agent/policy/policy.h"\nvoid F() { app.add_option("--source", s, "where"); }\n',
    "tools/dev/demo.sh": "#!/bin/bash\n# demo\n",
    "tools/dev/test.sh": "#!/bin/bash\n# test\n",
    "README.md": "# x\n./dev demo\n./dev test\n[a page](docs/reasons.md)\n",
    "docs/reasons.md": "# Reasons\n## kNone\nfine\n## kPolicy\nno\n",
    "docs/configuration.md": "## The shim\n| `VSOCKET_LOG` | x |\n## vsocket-agent\n| `--source` | y |\n",
    ".clang-tidy": "# bugprone-x: it misreads us\nChecks: >\n  bugprone-*,\n  -bugprone-x\n",
}

# name -> (path, new content; None removes the file; a callable changes what is there), a part of the one expected finding
PLANTED = {
    "channel includes shim": ("channel/a.h", HEADER + '#include "shim/shim.cc"\n', "channel may include base, not shim"),
    "base includes channel": ("base/a.h", HEADER + '#include "channel/ring.h"\n', "base may include nothing, not channel"),
    "shim includes the agent": ("shim/a.cc", '#include "node-agent/model/pod.h"\n', "shim may include base, channel, not node-agent/model"),
    "a concern includes another": ("node-agent/kube/a.cc", '#include "node-agent/policy/policy.h"\n', "not node-agent/policy"),
    "model includes a concern": ("node-agent/model/a.h", HEADER + '#include "node-agent/policy/policy.h"\n', "not node-agent/policy"),
    "the CLI includes the agent": ("cli/a.cc", '#include "node-agent/model/pod.h"\n', "cli may include base, proto"),
    "policy sees protobuf": ("node-agent/policy/a.cc", '#include "vsocket/v1/agent.pb.h"\n', "gRPC headers, not node-agent/policy"),
    "the broker sees gRPC": ("node-agent/broker/a.cc", "#include <grpcpp/server.h>\n", "see protobuf and gRPC headers"),
    "verbs outside verbs*": ("node-agent/transport/shared.cc", "#include <infiniband/verbs.h>\n", "only node-agent/transport/verbs*"),
    "the shim uses a library": ("shim/a.cc", "#include <spdlog/spdlog.h>\n", "takes nothing from third parties"),
    "no pragma once": ("base/a.h", "struct A {};\n", "#pragma once"),
    "too long a file": ("base/a.cc", "int x;\n" * 801, "801 lines"),
    "too long a line": ("base/a.cc", "// " + "x" * 140 + "\n", "143 columns"),
    "a tab": ("base/a.cc", "int x;\n\tint y;\n", "base/a.cc:2: a tab"),
    "a space at the end": ("test/a.py", "x = 1 \n", "test/a.py:1: space at the end"),
    "no newline at the end": ("base/a.cc", "int x;", "no newline"),
    "a machine's path": ("docs/a.md", "see /wor" + "k/main\n", "a path of one machine"),
    "unfinished work": ("base/a.cc", "// TO" + "DO: later\n", "unfinished work"),
    "a verb that is not there": ("docs/a.md", "run ./dev fly\n", "there is no ./dev fly"),
    "README without the demo": ("README.md", "# x\n./dev test\n", "name ./dev demo"),
    "a dead link": ("docs/a.md", "[x](nowhere.md)\n", "the link leads nowhere: nowhere.md"),
    "a reason without a paragraph": ("docs/reasons.md", "## kNone\nfine\n", "no paragraph on kPolicy"),
    "a paragraph without a reason": ("docs/reasons.md", "## kNone\n## kPolicy\n## kMoon\n", "kMoon is not in channel/reason.h"),
    "an unexplained variable": ("shim/a.cc", 'const char* x = "VSOCKET_MOON";\n', "the shim reads VSOCKET_MOON"),
    "a variable that nobody reads": ("shim/shim.cc", "int x;\nconst char* y = \"VSOCKET_A\";\n", "VSOCKET_LOG is explained"),
    "an unexplained flag": ("node-agent/flags.cc", 'void F() { app.add_flag("--moon", m, ""); }\n', "vsocket-agent has --moon"),
    "a flag that is not there": ("node-agent/main.cc", 'void F() { app.add_option("--root", r, ""); }\n', "--source is explained"),
    "a check off without a reason": (".clang-tidy", "Checks: >\n  bugprone-*,\n  -bugprone-x\n", "bugprone-x is off without a reason"),
    "a header that needs another": ("base/a.h", HEADER + "inline std::uint8_t x = 0;\n", "base/a.h: does not compile alone"),
}


class TidyTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        for path, text in CLEAN.items():
            self.write(path, text)

    def write(self, path, text):
        full = os.path.join(self.folder.name, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as stream:
            stream.write(text)

    def findings(self, compile_headers=False):
        return [str(finding) for finding in tidy.findings(Tree.load(self.folder.name), compile_headers)]

    def test_a_clean_tree_has_no_finding(self):
        self.assertEqual(self.findings(compile_headers=True), [])

    def test_each_planted_violation_is_caught(self):
        for name, (path, text, expected) in PLANTED.items():
            with self.subTest(name):
                self.write(path, text)
                found = self.findings(compile_headers="compile" in expected)
                if path in CLEAN:
                    self.write(path, CLEAN[path])
                else:
                    os.remove(os.path.join(self.folder.name, path))
                self.assertTrue(any(expected in finding for finding in found), f"{name}: {found}")
                # Nothing but the planted file, or a page that it makes untrue, is reported.
                related = (path, expected, "docs/configuration.md")
                self.assertTrue(all(any(part in finding for part in related) for finding in found), found)

    def test_many_long_files_break_the_budget(self):
        for number in range(8):
            self.write(f"base/long{number}.cc", "int x;\n" * 500)
        self.assertTrue(any("p90" in finding for finding in self.findings()))

    def test_the_size_report_counts_sources(self):
        report = list(text_rules.size_report(Tree.load(self.folder.name)))
        self.assertTrue(report and report[0].startswith("product sources: "), report)


if __name__ == "__main__":
    unittest.main()
