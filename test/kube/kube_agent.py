"""An agent whose source is an API server, on loopback, as a test sees it."""

import json
import os
import re
import sys
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from procs import Process, run, wait_until  # noqa: E402

HTTP = "127.0.0.1:9809"  # free: the test has a network namespace of its own


class KubeAgent:
    def __init__(self, bin_folder, work, server, ca, token_file=None, cert=None, timeout_seconds=2, node="n1"):
        self.bin, self.work = bin_folder, work
        self.socket = os.path.join(work, "rpc.sock")
        flags = {"source": "kube", "kube-server": server, "kube-ca-file": ca, "kube-timeout-seconds": timeout_seconds, "node-name": node,
                 "run-dir": os.path.join(work, "run"), "state-dir": os.path.join(work, "state"), "spool-dir": os.path.join(work, "spool"),
                 "rpc-socket": self.socket, "shim-library": "", "enforcement": "ring-only", "http-listen": HTTP}
        if token_file:
            flags["kube-token-file"] = token_file
        if cert:
            flags["kube-cert-file"], flags["kube-key-file"] = cert
        self.argv = [os.path.join(bin_folder, "vsocket-agent"), *(f"--{name}={value}" for name, value in flags.items())]
        self.process = None

    def start(self):
        self.process = Process(self.argv, os.path.join(self.work, "agent.log"))
        wait_until(lambda: self.process.has_said("agent ready") or not self.process.alive(), "the agent to run")
        return self

    def stop(self):
        if self.process is not None:
            self.process.stop()

    def ctl(self, *words, check=True):
        return run([os.path.join(self.bin, "vsocketctl"), "--agent-socket", self.socket, "-o", "json", *words], check=check)

    def status(self):
        return json.loads(self.ctl("status").stdout)

    def ready(self):
        return self.status().get("ready", False)

    def problems(self):
        return [f"{problem['where']}: {problem['what']}" for problem in self.status()["problems"]]

    def has_problem(self, *parts):
        return any(all(part in problem for part in parts) for problem in self.problems())

    def allows(self, source, destination, port=80):
        """True, False, or None: one of the pods is not known."""
        done = self.ctl("policy", "trace", source, f"{destination}:{port}", check=False)
        return json.loads(done.stdout)["allowed"] if done.returncode == 0 else None

    def why(self, source, destination):
        return json.loads(self.ctl("policy", "trace", source, f"{destination}:80").stdout)

    def metrics(self):
        with urllib.request.urlopen(f"http://{HTTP}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in re.findall(r"^(vsocket_kube_\w+) (\S+)$", text, re.M)}

    def rss_mib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as stream:
            return int(re.search(r"VmRSS:\s+(\d+) kB", stream.read()).group(1)) / 1024

    def wait(self, condition, what, timeout=20.0):
        return wait_until(condition, f"{what}; problems: {self.problems()}", timeout)
