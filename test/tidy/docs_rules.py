"""What the documents claim is true of the tree."""

import os
import re

from tree import Finding

DEV_COMMAND = re.compile(r"\./dev ([a-z]+)")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
REASON = re.compile(r'^\s*X\((k[A-Za-z]+),', re.M)
ENVIRONMENT = re.compile(r'"(VSOCKET_[A-Z_]+)')
FLAG = re.compile(r'add_(?:option|flag)\w*\(\s*"[^"]*?(--[a-z-]+)')  # CLI11: add_option("--name", ...)
SHIM, AGENT = re.compile(r"shim/.*"), re.compile(r"node-agent/[^/]+\.(?:cc|h)")  # the agent's flags are in its top folder


def check(tree):
    yield from _dev_verbs(tree)
    yield from _links(tree)
    yield from _reasons(tree)
    yield from _environment(tree)
    yield from _flags(tree)
    yield from _clang_tidy_reasons(tree)


def _markdown(tree):
    return [file for file in tree.files.values() if file.extension == ".md"]


def _dev_verbs(tree):
    for file in _markdown(tree):
        for number, line in enumerate(file.lines, 1):
            for verb in DEV_COMMAND.findall(line):
                if f"tools/dev/{verb}.sh" not in tree.files:
                    yield Finding(f"{file.path}:{number}", f"there is no ./dev {verb}")
    readme = tree.files.get("README.md")
    if readme:
        for verb in ("demo", "test"):
            if f"./dev {verb}" not in "\n".join(readme.lines[:20]):
                yield Finding("README.md", f"the first 20 lines name ./dev {verb}")


def _links(tree):
    for file in _markdown(tree):
        for number, line in enumerate(file.lines, 1):
            for target in LINK.findall(line):
                if "://" in target or target.startswith("mailto:"):
                    continue
                path = os.path.normpath(os.path.join(tree.root, os.path.dirname(file.path), target))
                if not os.path.exists(path):
                    yield Finding(f"{file.path}:{number}", f"the link leads nowhere: {target}")


def _both_ways(page, known, explained, missing, extra):
    """What the tree has and the page explains are the same. `missing` and `extra` say what is wrong with a name."""
    for name in sorted(known - explained):
        yield Finding(page.path, missing.format(name))
    for name in sorted(explained - known):
        yield Finding(page.path, extra.format(name))


def _reasons(tree):
    header, page = tree.files.get("channel/reason.h"), tree.files.get("docs/reasons.md")
    if not header or not page:
        return
    named = set(re.findall(r"^## (k[A-Za-z]+)", page.text, re.M))
    known = set(REASON.findall(header.text))
    yield from _both_ways(page, known, named, "no paragraph on {} of channel/reason.h", "{} is not in channel/reason.h")


def _named_in_code(tree, paths, pattern):
    """What `pattern` finds in the sources whose path matches `paths`, tests left out."""
    files = [file for file in tree.code() if paths.fullmatch(file.path) and not file.is_test]
    return {name for file in files for name in pattern.findall(file.text)}


def _environment(tree):
    """Variables that the shim reads and variables that the page explains are the same."""
    if page := tree.files.get("docs/configuration.md"):
        explained = set(re.findall(r"^\| `(VSOCKET_[A-Z_]+)`", page.text, re.M))
        missing, extra = "the shim reads {}, which no row explains", "{} is explained, and the shim does not read it"
        yield from _both_ways(page, _named_in_code(tree, SHIM, ENVIRONMENT), explained, missing, extra)


def _flags(tree):
    """Flags of the agent and flags that the page explains are the same."""
    if page := tree.files.get("docs/configuration.md"):
        section = page.text.partition("## vsocket-agent")[2].partition("\n## ")[0]
        explained = set(re.findall(r"^\| `(--[a-z-]+)", section, re.M))
        missing, extra = "vsocket-agent has {}, which no row explains", "{} is explained, and vsocket-agent has no such flag"
        yield from _both_ways(page, _named_in_code(tree, AGENT, FLAG), explained, missing, extra)


def _clang_tidy_reasons(tree):
    """Each check that is off has its reason in a comment on the line before."""
    file = tree.files.get(".clang-tidy")
    if not file:
        return
    for number, line in enumerate(file.lines, 1):
        for check_name in re.findall(r"-([a-z0-9]+-[a-z0-9.*-]+)", line.partition("#")[0]):
            if line.lstrip().startswith("-") and not re.search(rf"#\s*{re.escape(check_name)}: \S", file.text):
                yield Finding(f".clang-tidy:{number}", f"{check_name} is off without a reason")
