"""The source tree as the tidy rules see it: files, their lines, their #includes."""

import os
import re
from dataclasses import dataclass, field
from functools import cached_property

SKIPPED_FOLDERS = {".git", ".cache", "build", "__pycache__"}
CODE = (".h", ".cc", ".c")
SOURCES = CODE + (".py", ".sh", ".def", ".proto", ".pml")
PROSE = (".md", ".yaml", ".yml", ".json", ".txt", ".cmake")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


@dataclass(frozen=True)
class Finding:
    where: str  # "path:line" or "path"
    what: str

    def __str__(self):
        return f"{self.where}: {self.what}"


@dataclass
class File:
    path: str  # from the root, with slashes
    text: str

    @cached_property
    def lines(self):
        return self.text.splitlines()

    @property
    def extension(self):
        return os.path.splitext(self.path)[1]

    @property
    def is_code(self):
        return self.extension in CODE

    @property
    def is_source(self):
        if self.extension in SOURCES or self.path in ("dev", ".ci/run"):
            return True
        return self.extension == "" and self.text.startswith("#!")

    @property
    def is_test(self):
        return self.path.startswith("test/") or self.path.rsplit(".", 1)[0].endswith("_test")

    @cached_property
    def includes(self):
        """[(line number, '<' or '\"', what)]"""
        found = []
        for number, line in enumerate(self.lines, 1):
            match = INCLUDE.match(line)
            if match:
                found.append((number, match.group(1), match.group(2)))
        return found


@dataclass
class Tree:
    root: str
    build: str | None = None  # a configured build tree, for generated headers and include paths
    files: dict = field(default_factory=dict)

    @classmethod
    def load(cls, root, build=None):
        tree = cls(os.path.abspath(root), os.path.abspath(build) if build else None)
        for folder, names, files in os.walk(tree.root):
            names[:] = sorted(name for name in names if name not in SKIPPED_FOLDERS)
            for name in sorted(files):
                full = os.path.join(folder, name)
                path = os.path.relpath(full, tree.root).replace(os.sep, "/")
                if os.path.islink(full) or not os.path.isfile(full) or path.startswith("test/corpus/"):
                    continue
                with open(full, "rb") as stream:
                    raw = stream.read()
                if b"\0" not in raw[:4096]:
                    tree.files[path] = File(path, raw.decode("utf-8", "replace"))
        return tree

    def sources(self):
        return [file for file in self.files.values() if file.is_source]

    def code(self):
        return [file for file in self.files.values() if file.is_code]
