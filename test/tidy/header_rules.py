"""Every header compiles alone. A result is kept in the build tree until the header, or one of ours that it includes, changes."""

import hashlib
import json
import os
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

from tree import Finding


def check(tree, compiler="g++", jobs=2):
    cache_path = os.path.join(tree.build, "tidy-headers.json") if tree.build else None
    cache = _load(cache_path)
    flags = _include_flags(tree)
    headers = [file for file in tree.files.values() if file.extension == ".h"]
    keys = {file.path: _key(tree, file, flags) for file in headers}
    todo = [file for file in headers if cache.get(file.path) != keys[file.path]]
    findings = []
    with ThreadPoolExecutor(jobs) as pool:
        for file, error in zip(todo, pool.map(lambda one: _compile(tree, one.path, compiler, flags), todo)):
            if error:
                findings.append(Finding(file.path, f"does not compile alone: {error}"))
            else:
                cache[file.path] = keys[file.path]
    if cache_path:
        with open(cache_path, "w", encoding="utf-8") as stream:
            json.dump(cache, stream)
    return findings


def _load(path):
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, TypeError, ValueError):
        return {}


def _include_flags(tree):
    """Every include folder that some target of the build uses: which target a header belongs to is not ours to know."""
    flags = ["-I", tree.root]
    path = os.path.join(tree.build, "compile_commands.json") if tree.build else ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            commands = {entry["command"] for entry in json.load(stream)}
        for folder in sorted(set(re.findall(r"-(?:I|isystem) ?(\S+)", " ".join(commands)))):
            flags += ["-isystem", shlex.split(folder)[0]]
    if tree.build:
        flags += ["-I", tree.build]
    return flags


def _key(tree, file, flags):
    digest = hashlib.sha256(" ".join(flags).encode())
    seen, queue = set(), [file.path]
    while queue:
        path = queue.pop()
        if path in seen or path not in tree.files:
            continue
        seen.add(path)
        digest.update(tree.files[path].text.encode())
        queue += sorted(target for _, kind, target in tree.files[path].includes if kind == '"')
    return digest.hexdigest()


def _is_c(tree, path):
    """A header of a folder that holds C and no C++."""
    folder = os.path.dirname(path) + "/"
    kinds = {file.extension for file in tree.code() if os.path.dirname(file.path) + "/" == folder}
    return ".c" in kinds and ".cc" not in kinds


def _compile(tree, path, compiler, flags):
    # Wrapped, so that #pragma once is not a warning about a main file; twice, so that it must work.
    program = f'#include "{path}"\n#include "{path}"\n'
    language = ["-std=gnu17", "-D_GNU_SOURCE", "-x", "c"] if _is_c(tree, path) else ["-std=c++20", "-x", "c++"]
    command = [compiler, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *flags, *language, "-"]
    run = subprocess.run(command, input=program, capture_output=True, text=True, cwd=tree.root, timeout=120, check=False)
    if run.returncode == 0:
        return None
    errors = [line for line in run.stderr.splitlines() if "error" in line]
    return (errors or run.stderr.splitlines() or ["the compiler failed"])[0]
