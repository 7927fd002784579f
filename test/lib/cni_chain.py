"""Runs a CNI conflist the way a container runtime does (CNI spec, section 4: "Attachment"): ADD in order, each plugin being given the
result of the one before it; DEL in reverse order."""

import json
import os
import subprocess

from procs import Failure

PLUGIN_FOLDER = "/usr/lib/cni"  # Debian's containernetworking-plugins


def conflist(subnet, data_folder, vsocket=None):
    """bridge with host-local addresses, portmap, and, when `vsocket` (its configuration) is given, vsocket-cni."""
    plugins = [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": data_folder,
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    if vsocket is not None:
        plugins.append({"type": "vsocket-cni", **vsocket})
    # 1.0.0 is the newest version that Debian 12's plugins speak.
    return {"cniVersion": "1.0.0", "name": "vsocket", "plugins": plugins}


class Chain:
    """`prefix` is put before each plugin's command line: it runs in the node's network namespace."""

    def __init__(self, config, search_path, prefix=()):
        self.config = config
        self.search_path = [*search_path, PLUGIN_FOLDER]
        self.prefix = list(prefix)

    def add(self, attachment):
        result = None
        for plugin in self.config["plugins"]:
            result = self._call("ADD", plugin, attachment, result)
        return result

    def check(self, attachment, result):
        for plugin in self.config["plugins"]:
            self._call("CHECK", plugin, attachment, result)

    def delete(self, attachment, result):
        for plugin in reversed(self.config["plugins"]):
            self._call("DEL", plugin, attachment, result)

    def _call(self, command, plugin, attachment, previous):
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        config.update(cniVersion=self.config["cniVersion"], name=self.config["name"])
        wanted = plugin.get("capabilities", {})
        capabilities = {key: value for key, value in attachment.get("runtimeConfig", {}).items() if wanted.get(key)}
        if capabilities:
            config["runtimeConfig"] = capabilities
        if previous is not None:
            config["prevResult"] = previous
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": attachment["container_id"],
            "CNI_NETNS": attachment["netns"],
            "CNI_IFNAME": attachment["ifname"],
            "CNI_PATH": ":".join(self.search_path),
            "CNI_ARGS": attachment["args"],
        }
        argv = [*self.prefix, self._find(plugin["type"])]
        done = subprocess.run(argv, input=json.dumps(config), env=environment, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise Failure(f"{plugin['type']} {command} failed: {done.stdout.strip() or done.stderr.strip()}")
        return json.loads(done.stdout) if command == "ADD" else None

    def _find(self, name):
        for folder in self.search_path:
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK):
                return path
        raise Failure(f"no CNI plugin {name} in {':'.join(self.search_path)}")
