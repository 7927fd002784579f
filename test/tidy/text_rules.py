"""Rules about the text of files: size, layout, words."""

import re
import statistics

from tree import PROSE, Finding

MAX_LINES = 800
MAX_P90 = 400
MAX_COLUMNS = 140

# Words of a workplace or of unfinished work. Written so that this file does not hold them itself.
FORBIDDEN = {
    r"/wor[k]/": "a path of one machine",
    r"/tm[p]/brief": "a path of one machine",
    r"\bpyen[v]\b": "a tool of one machine",
    r"artifact-registr[y]": "a registry host",
    r"\bTOD[O]\b|\bFIXM[E]\b|\bXX[X]\b": "unfinished work belongs in an issue",
    r"(?i)\b(as an|the) (ai|coding) (assistan[t]|agen[t])\b|language mode[l]\b": "the repository speaks about the project only",
    r"#define\s+private\s+publi[c]": "private means private",
}


def check(tree):
    for file in tree.files.values():
        if file.is_source:
            yield from _check_layout(file)
        if file.is_source or file.extension in PROSE:
            yield from _check_words(file)
        if file.extension == ".h" and "#pragma once" not in file.text:
            yield Finding(file.path, "a header starts with #pragma once")
    for name, sizes in size_groups(tree).items():
        if sizes and p90(sizes) >= MAX_P90:
            yield Finding(name, f"p90 of the lines a file is {p90(sizes)}, the budget is under {MAX_P90}")


def _check_layout(file):
    if len(file.lines) > MAX_LINES:
        yield Finding(file.path, f"{len(file.lines)} lines, the limit is {MAX_LINES}")
    if file.text and not file.text.endswith("\n"):
        yield Finding(file.path, "no newline at the end")
    for number, line in enumerate(file.lines, 1):
        where = f"{file.path}:{number}"
        if "\t" in line:
            yield Finding(where, "a tab")
        if line != line.rstrip():
            yield Finding(where, "space at the end of the line")
        if len(line) > MAX_COLUMNS:
            if where.startswith("shim/calls.def"):
                continue  # a table: one row a call
            yield Finding(where, f"{len(line)} columns, the limit is {MAX_COLUMNS}")


def _check_words(file):
    for pattern, why in FORBIDDEN.items():
        for number, line in enumerate(file.lines, 1):
            match = re.search(pattern, line)
            if match:
                yield Finding(f"{file.path}:{number}", f"'{match.group(0)}': {why}")


def p90(sizes):
    ordered = sorted(sizes)
    return ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]


def size_groups(tree):
    """Lines a file, of product sources and of tests."""
    return {
        "product sources": [len(file.lines) for file in tree.sources() if not file.is_test],
        "test sources": [len(file.lines) for file in tree.sources() if file.is_test],
    }


def size_report(tree):
    for name, sizes in size_groups(tree).items():
        if sizes:
            yield f"{name}: {len(sizes)} files, lines median {statistics.median(sizes):.0f}, p90 {p90(sizes)}, max {max(sizes)}"
