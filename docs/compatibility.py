#!/usr/bin/env python3
"""Writes docs/compatibility.md from shim/calls.def, the one list of calls that the shim knows.

    docs/compatibility.py            writes the page
    docs/compatibility.py --check    exit status 1 when the page is not what it would write
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CALLS = os.path.join(ROOT, "shim", "calls.def")
PAGE = os.path.join(ROOT, "docs", "compatibility.md")

SUPPORT = {
    "kRing": "on the ring",
    "kTcp": "by TCP, for good",
    "kKernel": "by the kernel, answer adjusted",
    "kTrack": "watched",
}
ROW = re.compile(r'^VSOCKET_CALL\((\w+), .*, (k\w+), "(.*)"\)$')
GROUP = re.compile(r"^// ([A-Z][a-z]+(?: [a-z]+)*)$")
NOT_INTERPOSED = re.compile(r'^// VSOCKET_NOT_INTERPOSED\((\w+), "(.*)"\)$')

INTRODUCTION = """\
<!-- Written by docs/compatibility.py from shim/calls.def. Change that file, and run the program. -->
# What works on an accelerated connection

The shim (`libvsocket.so`) stands in for the C library's functions below. A socket stays a real TCP socket throughout; what a ring cannot
do brings the connection down to kernel TCP first, without losing a byte, and the kernel does it. A socket that is not an accelerated TCP
connection is the kernel's alone.

| support | meaning |
| --- | --- |
| on the ring | works on the ring as it does on TCP |
| by TCP, for good | the connection goes down to kernel TCP and stays there; then the kernel does it. `vsocketctl connections` says why |
| by the kernel, answer adjusted | the kernel is asked, and its answer completed by what the ring holds; the note names what goes by TCP |
| watched | the kernel does it; the shim takes a note |
"""


def read_calls(lines):
    """[(group, [(name, support, note)])], [(name, why)], in the order of the file. Raises on a row that it cannot read."""
    groups, omitted = [], []
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\n")
        if match := GROUP.match(line):
            groups.append((match.group(1), []))
        elif line.startswith("VSOCKET_CALL("):
            match = ROW.match(line)
            if not match or match.group(2) not in SUPPORT or not groups:
                raise ValueError(f"calls.def:{number}: not a row: {line}")
            groups[-1][1].append(match.groups())
        elif match := NOT_INTERPOSED.match(line):
            omitted.append(match.groups())
        elif line.startswith("// VSOCKET_NOT_INTERPOSED("):
            raise ValueError(f"calls.def:{number}: not a row: {line}")
    return [(name, rows) for name, rows in groups if rows], omitted


def cell(text):
    return text.replace("|", "\\|")


def sentence(text):
    return cell(text[:1].upper() + text[1:]) + "." if text else ""


def render(groups, omitted):
    parts = [INTRODUCTION]
    for group, rows in groups:
        parts.append(f"\n## {group}\n\n| call | support | notes |\n| --- | --- | --- |\n")
        parts += [f"| `{name}` | {SUPPORT[support]} | {sentence(note)} |\n" for name, support, note in rows]
    down = [name for _, rows in groups for name, support, _ in rows if support == "kTcp"]
    partly = [(name, note) for _, rows in groups for name, support, note in rows if support != "kTcp" and re.search(r"\bTCP\b", note)]
    parts.append("\n## What brings a connection down to TCP\n\n")
    parts.append("These calls, for each connection that they are given or that a new program inherits by them: ")
    parts.append(", ".join(f"`{name}`" for name in down) + ".\n\nThese, in the forms named:\n\n")
    parts += [f"- `{name}`: {cell(note)}.\n" for name, note in partly]
    parts.append(
        "\nBesides: a program that is executed without the shim, or a process that is handed the socket, has plain TCP from the start;\n"
        "the agent's restart, a lease that runs out or a policy change are told in [reasons.md](reasons.md).\n"
    )
    parts.append(
        "\n## What is not interposed, on purpose\n\n"
        "Before a connection is given a channel, the reads and writes that the shim saw must add up to the kernel's own counts. A\n"
        "connection that was used in one of these ways fails that check and stays on TCP for good (`kForeignUse` in\n"
        "[reasons.md](reasons.md)). Once\n"
        "it is accelerated they are not supported: they would meet the frames that replace the payload, and the connection\n"
        "would be reset.\n\n"
        "| call | why, and what happens |\n| --- | --- |\n"
    )
    parts += [f"| `{name}` | {sentence(why)} |\n" for name, why in omitted]
    return "".join(parts)


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    with open(CALLS, encoding="utf-8") as stream:
        page = render(*read_calls(stream))
    if arguments:
        with open(PAGE, encoding="utf-8") as stream:
            if stream.read() == page:
                return 0
        print("docs/compatibility.md is not what shim/calls.def says: run docs/compatibility.py", file=sys.stderr)
        return 1
    with open(PAGE, "w", encoding="utf-8") as stream:
        stream.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
