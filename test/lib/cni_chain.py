"""Runs a CNI conflist as a container runtime does (CNI spec 1.1.0, sections 3 and 4; libcni's habits where the spec leaves a choice):
ADD in order, each plugin being given the result of the one before it; DEL in reverse order. What plugins say on stderr goes to stderr."""

import json
import os
import subprocess

from procs import Failure

PLUGIN_FOLDER = "/usr/lib/cni"  # Debian's containernetworking-plugins
GC_KEY = "cni.dev/valid-attachments"


def conflist(subnets, data_folder, vsocket=None, shape=False):
    """bridge with a host-local address of each of `subnets`, portmap, bandwidth if wanted, and, when `vsocket` (its configuration) is
    given, vsocket-cni."""
    plugins = [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": data_folder,
                "ranges": [[{"subnet": subnet}] for subnet in subnets],
                "routes": [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in subnets],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    if shape:
        plugins.append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    if vsocket is not None:
        plugins.append({"type": "vsocket-cni", **vsocket})
    # 1.0.0 is the newest version that Debian 12's plugins speak.
    return {"cniVersion": "1.0.0", "name": "vsocket", "plugins": plugins}


class PluginError(Failure):
    """A plugin exited with an error. `error` is what it printed: {"code", "msg", ...}."""

    def __init__(self, plugin, error):
        super().__init__(f"{plugin}: {error.get('msg')} (code {error.get('code')})")
        self.plugin = plugin
        self.error = error


class Attachment:
    """A container's interface. `capabilities` are a runtime's wishes, as portMappings; a plugin is told those that its entry names."""

    def __init__(self, container_id, ifname="eth0", netns="", args="", capabilities=None):
        self.container_id, self.ifname, self.netns = container_id, ifname, netns
        # bridge and its like refuse keys that they do not know unless told not to.
        self.args = f"IgnoreUnknown=1;{args}" if args else ""
        self.capabilities = capabilities or {}


class Chain:
    """`prefix` is put before each plugin's command line: it runs in the node's network namespace. Results are the caller's to keep."""

    def __init__(self, config, search_path=(PLUGIN_FOLDER,), prefix=()):
        self.config, self.search_path, self.prefix = config, list(search_path), list(prefix)

    @property
    def is_new(self):
        """STATUS and GC came with 1.1.0."""
        return tuple(map(int, self.config["cniVersion"].split("."))) >= (1, 1, 0)

    def add(self, attachment):
        """The last plugin's result. When one fails, all are told to DEL."""
        result = None
        try:
            for plugin in self.config["plugins"]:
                result = json.loads(self._call("ADD", plugin, attachment, result))
        except PluginError:
            self.delete(attachment, result)
            raise
        return result

    def check(self, attachment, result):
        for plugin in self.config["plugins"]:
            self._call("CHECK", plugin, attachment, result)

    def delete(self, attachment, result):
        for plugin in reversed(self.config["plugins"]):
            self._call("DEL", plugin, attachment, result)

    def garbage_collect(self, keep):
        """`keep`: pairs of container id and interface name."""
        if self.is_new:
            listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in keep]
            for plugin in self.config["plugins"]:
                self._call("GC", plugin, more={GC_KEY: listed})

    def status(self):
        if self.is_new:
            for plugin in self.config["plugins"]:
                self._call("STATUS", plugin)

    def _call(self, command, plugin, attachment=None, previous=None, more=None):
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        config.update(cniVersion=self.config["cniVersion"], name=self.config["name"], **(more or {}))
        if previous:
            config["prevResult"] = previous
        environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_PATH": ":".join(self.search_path)}
        if attachment is not None:
            environment.update(
                CNI_CONTAINERID=attachment.container_id, CNI_IFNAME=attachment.ifname, CNI_NETNS=attachment.netns, CNI_ARGS=attachment.args
            )
            wanted = {key: value for key, value in attachment.capabilities.items() if plugin.get("capabilities", {}).get(key)}
            if wanted:
                config["runtimeConfig"] = wanted
        argv = [*self.prefix, self._find(plugin["type"])]
        done = subprocess.run(argv, input=json.dumps(config), env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return done.stdout
        try:
            error = json.loads(done.stdout)
        except ValueError:
            error = {"code": 999, "msg": f"exited with {done.returncode} and printed no error: {done.stdout!r}"}
        raise PluginError(f"{plugin['type']} {command}", error)

    def _find(self, name):
        for folder in self.search_path:
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK):
                return path
        raise PluginError(name, {"code": 5, "msg": f"no plugin {name} in {':'.join(self.search_path)}"})
