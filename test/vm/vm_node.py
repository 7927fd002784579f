"""A node with its agent and pods inside a machine of the bed, driven from the host (guest_node.py runs at the other end)."""

import json
import os

from procs import Failure

HERE = os.path.dirname(os.path.abspath(__file__))
SLOW = 120.0  # seconds; emulation


class VmPod:
    def __init__(self, node, name, told):
        self.node, self.name = node, name
        self.ip, self.uid, self.full_name = told["ip"], told["uid"], told["full_name"]
        self.yaml = told["yaml"]

    def start(self, argv, shim=False, **options):
        """A commands.Command. `shim` as in pods.Pod."""
        words = self.node.call("command", pod=self.name, argv=[str(word) for word in argv], shim=shim)
        return self.node.machine.start_command(words, **options)

    def run(self, argv, shim=False, timeout=SLOW, **options):
        words = self.node.call("command", pod=self.name, argv=[str(word) for word in argv], shim=shim)
        return self.node.machine.run(words, timeout=timeout, **options)


class VmNode:
    """The cluster's pods are known to the agent of every node: publish() tells each of the others' too."""

    def __init__(self, machine, build, agent_flags=()):
        self.machine, self.name = machine, f"node-{machine.name}"
        self.subnet = f"10.244.{machine.number}.0/24"
        self.pods = []
        argv = ["python3", os.path.join(HERE, "guest_node.py"), build, self.name, self.subnet, *agent_flags]
        self._server = machine.start_command(argv, stdin=None)
        self._heard = 0
        self.work = self._answer()["work"]

    def _answer(self):
        def complete():
            return self._server.stdout.find("\n", self._heard) >= 0

        self._server.wait_for(complete, "answers", SLOW)
        text = self._server.stdout
        end = text.index("\n", self._heard)
        answer = json.loads(text[self._heard : end])
        self._heard = end + 1
        if "failure" in answer:
            raise Failure(f"{self.name}: {answer['failure']}")
        return answer["value"]

    def call(self, what, /, **arguments):
        self._server.send(json.dumps({"call": what, "with": arguments}).encode() + b"\n")
        return self._answer()

    def start_agent(self):
        self.call("start_agent")

    def ask(self, *words):
        return self.call("ask", words=words)

    def connections(self, **wanted):
        rows = self.ask("connections")["connections"]
        return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]

    def add_pod(self, name, **options):
        pod = VmPod(self, name, self.call("add_pod", name=name, **options))
        self.pods.append(pod)
        return pod

    def route(self, other):
        """To the pods of another node, by the cable."""
        self.machine.run(["ip", "route", "replace", other.subnet, "via", other.machine.address])

    def close(self):
        self._server.end_input()
        status = self._server.wait(SLOW)
        if status != 0:
            raise Failure(f"{self.name} ended with {status}: {self._server.output()[-2000:]}")


def publish(nodes):
    """Tells the agent of each node about the pods of the others."""
    for node in nodes:
        others = [pod.yaml for other in nodes if other is not node for pod in other.pods]
        node.call("write_cluster", name="others.yaml", text="---\n".join(others))
