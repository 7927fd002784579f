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
import subprocess
import sys

DEFAULT_PATH = "/usr/lib/cni:/opt/cni/bin"
CACHE_FOLDER = "/run/vsocket-conflist"
GC_KEY = "cni.dev/valid-attachments"


class PluginError(Exception):
    """A plugin exited with an error. `error` is what it printed: {"code", "msg", ...}."""

    def __init__(self, plugin, error):
        super().__init__(f"{plugin}: {error.get('msg')} (code {error.get('code')})")
        self.plugin = plugin
        self.error = error


class Attachment:
    def __init__(self, container_id, ifname="eth0", netns="", args="", capabilities=None):
        self.container_id, self.ifname, self.netns = container_id, ifname, netns
        # bridge and its like refuse keys that they do not know unless told not to.
        self.args = f"IgnoreUnknown=1;{args}" if args else ""
        self.capabilities = capabilities or {}


class Conflist:
    def __init__(self, config, search_path=DEFAULT_PATH, cache=CACHE_FOLDER):
        self.config, self.search_path, self.cache = config, search_path, cache

    @property
    def is_new(self):
        """STATUS and GC came with 1.1.0."""
        return tuple(map(int, self.config["cniVersion"].split("."))) >= (1, 1, 0)

    def add(self, attachment):
        result = None
        try:
            for plugin in self.config["plugins"]:
                result = json.loads(self._call("ADD", plugin, attachment, {"prevResult": result} if result else {}))
        except PluginError:
            self._delete(attachment, result)
            raise
        os.makedirs(self.cache, mode=0o700, exist_ok=True)
        with open(self._cache_file(attachment), "w", encoding="utf-8") as stream:
            kept = {"netns": attachment.netns, "args": attachment.args, "capabilities": attachment.capabilities}
            json.dump({"result": result, **kept}, stream)
        return result

    def check(self, attachment):
        kept = self._restore(attachment)
        for plugin in self.config["plugins"]:
            self._call("CHECK", plugin, attachment, {"prevResult": kept} if kept else {})

    def delete(self, attachment):
        self._delete(attachment, self._restore(attachment))
        if os.path.exists(self._cache_file(attachment)):
            os.unlink(self._cache_file(attachment))

    def garbage_collect(self, keep):
        """`keep`: pairs of container id and interface name."""
        if self.is_new:
            listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in keep]
            for plugin in self.config["plugins"]:
                self._call("GC", plugin, None, {GC_KEY: listed})

    def status(self):
        if self.is_new:
            for plugin in self.config["plugins"]:
                self._call("STATUS", plugin, None, {})

    def _delete(self, attachment, result):
        for plugin in reversed(self.config["plugins"]):
            self._call("DEL", plugin, attachment, {"prevResult": result} if result else {})

    def _cache_file(self, attachment):
        return os.path.join(self.cache, f"{self.config['name']}-{attachment.container_id}-{attachment.ifname}.json")

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

    def _call(self, command, plugin, attachment, more):
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        config.update(cniVersion=self.config["cniVersion"], name=self.config["name"], **more)
        environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_PATH": self.search_path}
        if attachment is not None:
            environment.update(
                CNI_CONTAINERID=attachment.container_id, CNI_IFNAME=attachment.ifname, CNI_NETNS=attachment.netns, CNI_ARGS=attachment.args
            )
            asked = {key: value for key, value in attachment.capabilities.items() if plugin.get("capabilities", {}).get(key)}
            if asked:
                config["runtimeConfig"] = asked
        done = subprocess.run(
            [self._find(plugin["type"])],
            input=json.dumps(config),
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout
        try:
            error = json.loads(done.stdout)
        except ValueError:
            error = {"code": 999, "msg": f"exited with {done.returncode} and printed no error: {done.stdout!r}"}
        raise PluginError(f"{plugin['type']} {command}", error)

    def _find(self, name):
        for folder in self.search_path.split(":"):
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK):
                return path
        raise PluginError(name, {"code": 5, "msg": f"no plugin {name} in {self.search_path}"})


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
