#!/usr/bin/env python3
"""The tidy test: the tree against its own rules. Prints every finding and how many there are; exit status 1 when there is one."""

import argparse
import os
import sys

import docs_rules
import header_rules
import include_rules
import text_rules
from tree import Tree


def findings(tree, compile_headers=True):
    found = [*include_rules.check(tree), *text_rules.check(tree), *docs_rules.check(tree)]
    if compile_headers:
        found += header_rules.check(tree, jobs=os.cpu_count() or 2)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=os.path.join(os.path.dirname(__file__), "..", ".."))
    parser.add_argument("--build", help="a configured build tree: generated headers, include paths, cache of compiled headers")
    parser.add_argument("--no-headers", action="store_true", help="leave out compiling each header alone")
    options = parser.parse_args()
    tree = Tree.load(options.root, options.build)
    found = findings(tree, not options.no_headers)
    for finding in found:
        print(finding)
    for line in text_rules.size_report(tree):
        print(line)
    print(f"tidy: {len(tree.files)} files, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
