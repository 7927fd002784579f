#!/usr/bin/env python3
"""Runs a CNI conflist as a container runtime does (CNI spec 1.1.0, sections 3 and 4; libcni's habits where the spec leaves a choice).

  conflist.py add    --conflist F --netns /run/netns/web --container-id c1 --ifname eth0 --args 'K8S_POD_NAMESPACE=default;K8S_POD_NAME=web'
  conflist.py check  --conflist F --netns /run/netns/web --container-id c1 --args ...
  conflist.py del    --conflist F --container-id c1
  conflist.py gc     --conflist F --keep c1:eth0 --keep c2:eth0
  conflist.py status --conflist F

ADD calls the plugins in order, each with the result of the one before it, and prints the last result. When one fails, all are told to
DEL, and its error is printed. The result is kept (--cache) for the CHECK and the DEL, which goes in reverse order.
Exit status: 0, 1 when a plugin failed (its error JSON is on stdout), 2 for wrong usage. What plugins say on stderr goes to stderr.
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from cni_chain import Attachment, Chain, PluginError  # noqa: E402

DEFAULT_PATH = "/usr/lib/cni:/opt/cni/bin"
CACHE_FOLDER = "/run/vsocket-conflist"


class Conflist:
    """A chain whose results are kept in files, so that each command can be a process of its own."""

    def __init__(self, config, search_path=DEFAULT_PATH, cache=CACHE_FOLDER):
        self.chain, self.cache = Chain(config, search_path.split(":")), cache
        self.garbage_collect, self.status = self.chain.garbage_collect, self.chain.status

    def add(self, attachment):
        result = self.chain.add(attachment)
        os.makedirs(self.cache, mode=0o700, exist_ok=True)
        with open(self._cache_file(attachment), "w", encoding="utf-8") as stream:
            kept = {"netns": attachment.netns, "args": attachment.args, "capabilities": attachment.capabilities}
            json.dump({"result": result, **kept}, stream)
        return result

    def check(self, attachment):
        self.chain.check(attachment, self._restore(attachment))

    def delete(self, attachment):
        self.chain.delete(attachment, self._restore(attachment))
        if os.path.exists(self._cache_file(attachment)):
            os.unlink(self._cache_file(attachment))

    def _cache_file(self, attachment):
        return os.path.join(self.cache, f"{self.chain.config['name']}-{attachment.container_id}-{attachment.ifname}.json")

    def _restore(self, attachment):
        """The kept result; fills in what the caller did not give again."""
        try:
            with open(self._cache_file(attachment), encoding="utf-8") as stream:
                kept = json.load(stream)
        except FileNotFoundError:
            return None
        attachment.netns = attachment.netns or kept["netns"]
        attachment.args = attachment.args or kept["args"]
        attachment.capabilities = attachment.capabilities or kept["capabilities"]
        return kept["result"]


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["add", "del", "check", "gc", "status"])
    parser.add_argument("--conflist", required=True, help="the file")
    parser.add_argument("--netns", default="", help="path of the network namespace; del and check remember it")
    parser.add_argument("--container-id")
    parser.add_argument("--ifname", default="eth0")
    parser.add_argument("--args", default="", help="CNI_ARGS: KEY=VALUE;KEY=VALUE")
    parser.add_argument("--capability-args", default="{}", help='JSON, as in \'{"portMappings": [...]}\'')
    parser.add_argument("--path", default=DEFAULT_PATH, help="folders of plugins, separated by colons (default %(default)s)")
    parser.add_argument("--cache", default=CACHE_FOLDER, help="where results are kept (default %(default)s)")
    parser.add_argument("--keep", action="append", default=[], metavar="CONTAINER:IFNAME", help="gc: an attachment that is still in use")
    options = parser.parse_args(argv)
    if options.command in ("add", "check", "del") and not options.container_id:
        parser.error(f"{options.command} needs --container-id")
    if options.command == "add" and not options.netns:
        parser.error("add needs --netns")
    return options


def main(argv):
    options = parse(argv)
    with open(options.conflist, encoding="utf-8") as stream:
        conflist = Conflist(json.load(stream), options.path, options.cache)
    attachment = Attachment(options.container_id, options.ifname, options.netns, options.args, json.loads(options.capability_args))
    try:
        if options.command == "add":
            print(json.dumps(conflist.add(attachment)))
        elif options.command == "check":
            conflist.check(attachment)
        elif options.command == "del":
            conflist.delete(attachment)
        elif options.command == "gc":
            conflist.garbage_collect([tuple(entry.rpartition(":")[::2]) for entry in options.keep])
        else:
            conflist.status()
    except PluginError as failed:
        print(json.dumps(failed.error))
        print(f"conflist: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
