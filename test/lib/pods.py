#!/usr/bin/env python3
"""Pods without a cluster: network namespaces wired by the real CNI chain, an agent, programs with and without the shim.

    with Node(build="build/release") as node:
        node.start_agent()
        server = node.add_pod("redis", labels={"app": "redis"}, ports={"redis": 6379})
        process = server.start(["redis-server", "--port", "6379"], shim=True)

The node is a network namespace too, so bridge, addresses and iptables rules never touch the machine and several nodes can live side by
side. All names hold this process' pid: `pods.py cleanup` removes what a dead process left, and nothing else. Needs root.
"""

import itertools
import os
import re
import shutil
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from agent import Agent  # noqa: E402
from cni_chain import PLUGIN_FOLDER, Attachment, Chain, conflist  # noqa: E402
from procs import Failure, Process, run  # noqa: E402
from sanitizer import Reports, system_build  # noqa: E402

SUBNET = "10.244.0.0/24"
SUBNET6 = "fd00:244::/64"
SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
SHAPER_BURST = 8 * 64 * 1024  # bits; more than a segment of the kernel's, or none would get through
NETNS_FOLDER = "/run/netns"

POD_YAML = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {ns}
  uid: {uid}
  labels: {{{labels}}}
  annotations: {{vsocket.io/inject: "true"{annotations}}}
spec:
  nodeName: {node}
  containers:
  - name: main
    image: none
    ports: [{ports}]
status:
  phase: Running
  podIP: {ip}
  podIPs: [{ips}]
"""
NAMESPACE_YAML = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {ns}, labels: {{kubernetes.io/metadata.name: {ns}}}}}\n"


def plain_environment(extra=None):
    """This process' environment without anything of the shim's."""
    values = {key: value for key, value in os.environ.items() if not key.startswith("VSOCKET_") and key != "LD_PRELOAD"}
    return values | (extra or {})


class Pod:
    """A network namespace with an address, known to the agent by what the CNI plugin told it."""

    def __init__(self, node, name, ns, labels, ports, host_ports, annotations, chain):
        self.node, self.name, self.ns, self.chain = node, name, ns, chain
        self.labels, self.ports, self.annotations = dict(labels), dict(ports), dict(annotations)
        self.uid = node.uid_for(name, ns, self.labels)
        self.netns = f"{node.prefix}-{name}"
        self._folder = None
        limits = node.bandwidth_of(self.annotations)
        mappings = [{"hostPort": host, "containerPort": port, "protocol": "tcp"} for host, port in host_ports.items()]
        sandbox = f"sandbox-{self.uid}"
        args = f"K8S_POD_NAMESPACE={ns};K8S_POD_NAME={name};K8S_POD_UID={self.uid};K8S_POD_INFRA_CONTAINER_ID={sandbox}"
        self.attachment = Attachment(sandbox, "eth0", f"{NETNS_FOLDER}/{self.netns}", args, {"portMappings": mappings, "bandwidth": limits})
        run(["ip", "netns", "add", self.netns])
        try:
            run([*self.prefix(), "ip", "link", "set", "lo", "up"])
            self.result = chain.add(self.attachment)
        except BaseException:
            run(["ip", "netns", "del", self.netns], check=False)
            raise
        self.ips = [entry["address"].partition("/")[0] for entry in self.result["ips"]]
        self.ip = self.ips[0]

    @property
    def full_name(self):
        return f"{self.ns}/{self.name}"

    @property
    def folder(self):
        """The directory that a kubelet would mount at /run/vsocket."""
        for row in self.node.agent.ask("pods")["pods"]:
            if row.get("uid") == self.uid:
                return row["socket_dir"]
        raise Failure(f"the agent does not know {self.full_name}")

    def prefix(self, cpu=None):
        words = ["nsenter", f"--net={NETNS_FOLDER}/{self.netns}"]
        return words + ["taskset", "-c", str(cpu)] if cpu is not None else words

    def settings(self, shim):
        """The variables that load and steer the shim. `shim`: False, True, or a dict of VSOCKET_* variables that goes with True."""
        if shim is False:
            return {}
        if self._folder is None:
            # Found once: the agent may be dead by the time the next program starts.
            self._folder = self.folder if self.node.agent_wanted else self.node.work
        values = {"LD_PRELOAD": self.node.agent.library, "VSOCKET_AGENT": os.path.join(self._folder, "agent.sock")}
        return values | (shim if isinstance(shim, dict) else {})

    def command(self, argv, shim=False, cpu=None):
        """What runs `argv` in this pod. Only the program itself gets the shim, not the tools in front of it; the pid stays the same."""
        settings = [f"{key}={value}" for key, value in self.settings(shim).items()]
        return [*self.prefix(cpu), *(["env", *settings] if settings else []), *map(str, argv)]

    def environment(self, extra):
        return plain_environment(self.node.reports.environment() | (extra or {}))

    def start(self, argv, shim=False, cpu=None, env=None, cwd=None):
        log = os.path.join(self.node.work, "logs", f"{self.name}-{self.node.serial()}.log")
        process = Process(self.command(argv, shim, cpu), log, env=self.environment(env), cwd=cwd)
        self.node.processes.append(process)
        return process

    def run(self, argv, shim=False, cpu=None, env=None, cwd=None, timeout=120, check=True, stdin=None):
        command = self.command(argv, shim, cpu)
        done = run(command, env=self.environment(env), cwd=cwd, timeout=timeout, check=check, input=stdin)
        self.node.reports.search(done.stdout + done.stderr)
        return done

    def yaml(self):
        labels = ", ".join(f"{key}: {value}" for key, value in self.labels.items())
        pairs = {name: port if isinstance(port, tuple) else (port, "TCP") for name, port in self.ports.items()}
        ports = ", ".join(f"{{name: {name}, containerPort: {port}, protocol: {how}}}" for name, (port, how) in pairs.items())
        ips = ", ".join(f'{{ip: "{ip}"}}' for ip in self.ips)
        values = {"name": self.name, "ns": self.ns, "uid": self.uid, "labels": labels, "ports": ports, "ip": self.ip, "ips": ips}
        values["annotations"] = "".join(f', {key}: "{value}"' for key, value in self.annotations.items())
        return POD_YAML.format(**values, node=self.node.name)

    def remove(self):
        problem = None
        try:
            self.chain.delete(self.attachment, self.result)
        except Failure as failure:
            problem = failure
        run(["ip", "netns", "del", self.netns], check=False)
        if problem:
            raise problem


class Node:
    """A node: a network namespace with a bridge, its pods, its agent. Leaving the `with` removes everything.

    `shape`: with the bandwidth plugin in the chain, which limits what goes through the kernel.
    Of a sanitized build it takes the shim, and the programs of the tests; whatever they reported makes leaving the `with` a Failure.

    `own_netns` False: the node is the machine that this runs on, as in a virtual machine made for it. `name` is what pods have as nodeName.
    """

    def __init__(self, build, agent=True, agent_flags=(), shape=False, name="node1", subnet=SUBNET, subnet6=None, own_netns=True):
        self.name, self.subnets, self.own_netns = name, [one for one in (subnet, subnet6) if one], own_netns
        self.build = os.path.abspath(build)
        self.system = system_build(build)
        self.agent_wanted, self.agent_flags, self.shape = agent, agent_flags, shape
        self.prefix = f"vsk{os.getpid()}x{next(_node_numbers)}"
        self.work = f"/run/{self.prefix}"
        self.netns = f"{self.prefix}-node"
        self.pods, self.processes = [], []
        self._serial = itertools.count(1)

    def serial(self):
        return next(self._serial)

    def uid_for(self, name, _ns, _labels):
        """Of a pod that is about to be made."""
        return f"{name}-{self.serial()}"

    def __enter__(self):
        if os.geteuid() != 0:
            raise Failure("network namespaces need root")
        # A test that takes too long is sent SIGTERM: leave by the usual way, which cleans up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        os.makedirs(os.path.join(self.work, "logs"))
        self.reports = Reports(self.build, os.path.join(self.work, "reports"))
        inside = []
        if self.own_netns:
            run(["ip", "netns", "add", self.netns])
            inside = ["nsenter", f"--net={NETNS_FOLDER}/{self.netns}"]
            run([*inside, "ip", "link", "set", "lo", "up"])
        self.agent = Agent(self.system, self.work, inside, self.agent_flags, shim_build=self.build)
        vsocket = {"agentSocket": self.agent.socket, "spoolDir": os.path.join(self.work, "spool")} if self.agent_wanted else None
        plugins = [os.path.join(self.system, "bin"), PLUGIN_FOLDER]
        self.chain = Chain(conflist(self.subnets, os.path.join(self.work, "ipam"), vsocket, self.shape), plugins, inside)
        self.plain_chain = Chain(conflist(self.subnets, os.path.join(self.work, "ipam"), None, self.shape), plugins, inside)
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None and self.agent.process is not None:
            print(f"-- the end of the agent's log:\n{self.agent.process.output()[-3000:]}", file=sys.stderr)
        self.stop_processes()
        for process in self.processes:
            self.reports.search(process.output())
        reports = self.reports.text()
        self.close()
        if reports:
            print(reports, file=sys.stderr)
            raise Failure("a sanitizer has reported")

    def start_agent(self):
        self.agent.start()

    def bandwidth_of(self, annotations):
        """What a runtime hands to the bandwidth plugin for these annotations, when that is in the chain: bits, as the runtimes do."""
        limits = {}
        for way in ("ingress", "egress"):
            text = annotations.get(f"kubernetes.io/{way}-bandwidth")
            if self.shape and text:
                limits |= {f"{way}Rate": int(float(text.rstrip("kMG")) * SCALE[text.lstrip("0123456789.")]), f"{way}Burst": SHAPER_BURST}
        return limits

    def add_pod(self, name, ns="default", labels=None, ports=None, host_ports=None, annotations=None, annotated=True):
        """`annotated` False: a pod of the cluster that the agent is not told of, because nobody asked for vsocket there. `ports`: name to
        number, or to (number, protocol)."""
        chain = self.chain if annotated else self.plain_chain
        pod = Pod(self, name, ns, labels or {"app": name}, ports or {}, host_ports or {}, annotations or {}, chain)
        self.pods.append(pod)
        self.write_pods()
        return pod

    def write_pods(self):
        """The pods and their namespaces as they are now, annotations too, into the agent's source."""
        self.write_cluster("pods.yaml", "---\n".join(one.yaml() for one in self.pods))
        self.write_cluster("namespaces.yaml", "---\n".join(NAMESPACE_YAML.format(ns=ns) for ns in sorted({one.ns for one in self.pods})))

    def write_cluster(self, name, text):
        """Replaces one file of the agent's source directory at once; None removes it."""
        path = os.path.join(self.agent.cluster, name)
        if text is None:
            os.unlink(path)
            return
        with open(path + ".new", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.rename(path + ".new", path)

    def stop_processes(self):
        for process in reversed(self.processes):
            process.stop()

    def close(self):
        self.stop_processes()
        problems = []
        for pod in reversed(self.pods):
            try:
                pod.remove()
            except Failure as failure:
                problems.append(str(failure))
        if self.agent.process is not None:
            self.agent.stop()
        self.pods, self.processes = [], []
        if self.own_netns:
            run(["ip", "netns", "del", self.netns], check=False)
        shutil.rmtree(self.work, ignore_errors=True)
        for problem in problems:
            print(f"cleaning up: {problem}", file=sys.stderr)

    def leftovers(self):
        """Namespaces and folders of this node that still exist; empty after close()."""
        names = [name for name in os.listdir(NETNS_FOLDER) if name.startswith(self.prefix + "-")] if os.path.isdir(NETNS_FOLDER) else []
        return names + ([self.work] if os.path.exists(self.work) else [])


_node_numbers = itertools.count(1)


def cleanup():
    """Removes namespaces, their processes and folders whose maker is dead. Returns how many things were removed."""
    removed = 0
    owned = re.compile(r"^vsk(\d+)x\d+")
    for name in sorted(os.listdir(NETNS_FOLDER)) if os.path.isdir(NETNS_FOLDER) else []:
        match = owned.match(name)
        if not match or os.path.exists(f"/proc/{match.group(1)}"):
            continue
        for pid in run(["ip", "netns", "pids", name], check=False).stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        run(["ip", "netns", "del", name], check=False)
        removed += 1
    for name in os.listdir("/run"):
        match = owned.match(name)
        if match and not os.path.exists(f"/proc/{match.group(1)}"):
            shutil.rmtree(os.path.join("/run", name), ignore_errors=True)
            removed += 1
    return removed


if __name__ == "__main__":
    if sys.argv[1:] != ["cleanup"]:
        sys.exit("usage: pods.py cleanup")
    print(f"{cleanup()} leftovers removed")
