"""A test case with an API server of our own (fake_api.py), and an agent that follows it."""

import os
import shutil
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "cni"), os.path.join(HERE, "..", "lib")]

from certificates import Authority  # noqa: E402
from cluster_objects import deny_all, namespace, node, pod  # noqa: E402
from fake_api import FakeApi  # noqa: E402
from kube_agent import KubeAgent  # noqa: E402
from lab import enter  # noqa: E402

PATHS = {"bin": "", "pki": ""}


def write(path, text):
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write(text)
    os.rename(path + ".new", path)


class Case(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="vsk-kube-")
        self.addCleanup(shutil.rmtree, self.work)
        self.ca, self.token = os.path.join(self.work, "ca.crt"), os.path.join(self.work, "token")
        shutil.copy(os.path.join(PATHS["pki"], "ca.crt"), self.ca)
        write(self.token, "secret-1")
        self.api = FakeApi(os.path.join(PATHS["pki"], "server.crt"), os.path.join(PATHS["pki"], "server.key")).start()
        self.api.token = "secret-1"
        self.addCleanup(lambda: self.api.stop())
        self.storage = self.api.storage
        self.storage.put("namespaces", namespace())
        self.storage.put("nodes", node())
        self.storage.put("pods", pod("a", "10.0.0.1", app="a"))
        self.storage.put("pods", pod("b", "10.0.0.2", app="b"))
        self.agent = KubeAgent(PATHS["bin"], self.work, self.api.url, self.ca, self.token)
        self.addCleanup(self.agent.stop)

    def run(self, result=None):
        failures = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > failures:
            print(f"-- {self.id()}: the agent said\n{self.agent_said[-4000:]}", file=sys.stderr)

    def tearDown(self):
        self.agent_said = self.agent.process.output() if self.agent.process else ""

    agent_said = ""

    def start(self, ready=True):
        self.agent.start()
        if ready:
            self.agent.wait(self.agent.ready, "the first state")
            self.assertTrue(self.agent.allows("a", "b"))

    def assert_follows(self, timeout=20.0):
        """A policy that is put comes into force, and out of it again."""
        self.storage.put("networkpolicies", deny_all("check", app="b"))
        self.agent.wait(lambda: self.agent.allows("a", "b") is False, "a new policy", timeout)
        self.storage.delete("networkpolicies", "check")
        self.agent.wait(lambda: self.agent.allows("a", "b") is True, "the end of a policy", timeout)
        self.agent.wait(lambda: not self.agent.problems(), "the end of all problems", timeout)

    def wait_event(self, event, what, timeout=20.0):
        self.assertTrue(event.wait(timeout), f"{what}; problems: {self.agent.problems()}")

    def answer_lists(self, plural, function):
        """Every list of that kind is answered by `function`, until the result is called."""

        def fault(handler):
            if handler.plural != plural or handler.watching:
                return False
            function(handler)
            return True

        return self.api.fault(fault)

    def answer_watches(self, plural, function):
        def fault(handler):
            if handler.plural != plural or not handler.watching:
                return False
            function(handler)
            return True

        return self.api.fault(fault)

    def end_watches(self):
        """Makes every watch end, so that the agent lists anew."""
        self.storage.compact()
        self.api.stop()
        self.api.start()


def main(doc):
    if len(sys.argv) < 2:
        sys.exit(doc)
    enter()
    PATHS["bin"] = os.path.abspath(sys.argv.pop(1))
    with tempfile.TemporaryDirectory(prefix="vsk-pki-") as PATHS["pki"]:
        Authority(PATHS["pki"]).issue("server", "/CN=kube-apiserver")
        unittest.main(module="__main__", verbosity=2)
