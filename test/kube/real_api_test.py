#!/usr/bin/env python3
"""vsocket-agent against a real kube-apiserver and etcd, which are killed, restarted, compacted and given other certificates.

usage: real_api_test.py BIN_FOLDER [--all] [unittest arguments]

--all adds what takes minutes: a server that is gone for two, and lists of thousands.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "cni"), os.path.join(HERE, "..", "lib")]

from cluster_objects import deny_all, let_in, namespace, node, pod, policy  # noqa: E402
from control_plane import SERVER, ControlPlane, binaries  # noqa: E402
from fake_api import PLURALS  # noqa: E402
from kube_agent import KubeAgent  # noqa: E402
from lab import enter  # noqa: E402
from procs import Failure, run  # noqa: E402

BIN = ""


class RealApi(unittest.TestCase):
    """One control plane for all; each test has an agent of its own, and leaves the cluster as it was."""

    @classmethod
    def setUpClass(cls):
        cls.plane_work = tempfile.mkdtemp(prefix="vsk-plane-")
        cls.addClassCleanup(shutil.rmtree, cls.plane_work)
        cls.plane = ControlPlane(cls.plane_work)
        cls.addClassCleanup(cls.plane.stop)
        cls.plane.start()
        cls.plane.apply(node())
        for name, ip in (("a", "10.0.0.1"), ("b", "10.0.0.2")):
            cls.plane.put_pod(pod(name, ip, app=name))

    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="vsk-kube-")
        self.addCleanup(shutil.rmtree, self.work)
        self.ca, self.token = os.path.join(self.work, "ca.crt"), os.path.join(self.work, "token")
        shutil.copy(self.plane.server_ca, self.ca)
        self.plane.make_account(self.token)
        self.agent = KubeAgent(BIN, self.work, SERVER, self.ca, self.token, timeout_seconds=5)
        self.addCleanup(self.agent.stop)
        self.agent.start()
        self.agent.wait(self.agent.ready, "the first state", 60)
        self.agent.wait(lambda: not self.agent.problems(), "the end of all problems", 60)
        self.assertTrue(self.agent.allows("a", "b"))

    def tearDown(self):
        _, error, _ = sys.exc_info()
        if error is not None:
            print(self.agent.process.output()[-4000:], file=sys.stderr)

    def delete(self, plural, name):
        self.plane.kubectl("delete", plural, name, "--wait=false")

    def assert_follows(self, timeout=60.0):
        self.plane.apply(deny_all("check", app="b"))
        self.agent.wait(lambda: self.agent.allows("a", "b") is False, "a new policy", timeout)
        self.delete("networkpolicy", "check")
        self.agent.wait(lambda: self.agent.allows("a", "b") is True, "the end of a policy", timeout)
        self.agent.wait(lambda: not self.agent.problems(), "the end of all problems", 60)

    def assert_stale(self):
        self.agent.wait(lambda: len(self.agent.problems()) == len(PLURALS), "a problem a kind")
        self.assertTrue(self.agent.has_problem("the last known state stays in force"))
        self.assertTrue(self.agent.ready())
        self.assertTrue(self.agent.allows("a", "b"))

    def test_follows_what_is_applied(self):
        self.plane.apply(let_in("from-a", "b", [{"port": "http"}], app="a"))
        self.plane.put_pod(pod("c", "10.0.0.3", app="c"))
        self.agent.wait(lambda: self.agent.allows("c", "b") is False, "c is refused")
        self.assertTrue(self.agent.allows("a", "b"))
        self.plane.kubectl("label", "pod", "c", "app=a", "--overwrite")
        self.agent.wait(lambda: self.agent.allows("c", "b") is True, "c is let in")
        self.plane.kubectl("patch", "pod", "c", "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Succeeded"}}')
        self.agent.wait(lambda: self.agent.allows("c", "b") is None, "c is over")
        self.plane.delete_pod("c")
        self.delete("networkpolicy", "from-a")
        self.assert_follows()

    def test_a_namespace_with_its_labels(self):
        self.plane.apply(namespace("team", tier="gold"))
        self.addCleanup(lambda: self.plane.kubectl("delete", "namespace", "team", "--wait=false"))
        self.plane.put_pod({**pod("t", "10.0.0.7"), "metadata": {"name": "t", "namespace": "team"}})
        self.plane.apply(policy("gold", {"app": "b"}, ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"tier": "gold"}}}]}]))
        self.agent.wait(lambda: (self.agent.allows("team/t", "b"), self.agent.allows("a", "b")) == (True, False), "gold comes in")
        self.plane.kubectl("label", "namespace", "team", "tier=silver", "--overwrite")
        self.agent.wait(lambda: self.agent.allows("team/t", "b") is False, "silver does not")
        self.plane.delete_pod("t", "team")
        self.delete("networkpolicy", "gold")
        self.assert_follows()

    def test_a_policy_that_only_an_api_server_lets_through(self):
        self.plane.apply(policy("odd", {"app": "b"}, ingress=[{"from": [{"ipBlock": {"cidr": "::ffff:10.0.0.0/104"}}]}]))
        self.agent.wait(lambda: self.agent.has_problem("NetworkPolicy default/odd", "is not a CIDR"), "the problem")
        self.assertFalse(self.agent.allows("a", "b"))
        self.delete("networkpolicy", "odd")
        self.assert_follows()

    def test_an_api_server_that_is_killed(self):
        self.plane.apiserver.kill()
        self.assert_stale()
        self.plane.start_apiserver()
        self.assert_follows()

    def test_an_etcd_that_is_killed(self):
        self.plane.etcd.kill()
        for _ in range(20):
            self.assertTrue(self.agent.allows("a", "b"))
        self.plane.start_etcd()
        self.plane.wait_ready()
        self.assert_follows()

    def test_both_killed_and_a_history_that_is_gone(self):
        lists = self.agent.metrics()["vsocket_kube_lists_total"]
        self.plane.apiserver.kill()  # and with it the watches: nothing of what follows is on its way already
        os.kill(self.agent.process.pid, signal.SIGSTOP)
        try:
            self.plane.start_apiserver()
            self.plane.apply(deny_all("unseen", app="b"))
            for number in range(5):
                self.plane.kubectl("label", "pod", "a", f"round=r{number}", "--overwrite")
            self.plane.compact()
            self.plane.apiserver.kill()
            self.plane.etcd.kill()
            self.plane.start_etcd()
            self.plane.start_apiserver()
        finally:
            os.kill(self.agent.process.pid, signal.SIGCONT)
        self.agent.wait(lambda: self.agent.allows("a", "b") is False, "what happened meanwhile", 60)
        self.agent.wait(lambda: self.agent.metrics()["vsocket_kube_lists_total"] > lists, "a list, because the server has said 410")
        self.delete("networkpolicy", "unseen")
        self.agent.wait(lambda: self.agent.allows("a", "b") is True, "the end of a policy", 60)
        self.assert_follows()

    def test_a_token_that_is_no_longer_good(self):
        # A new account of the same name: tokens of the former one are worth nothing.
        self.plane.kubectl("delete", "serviceaccount", "vsocket-agent", "-n", "kube-system")
        self.plane.kubectl("create", "serviceaccount", "vsocket-agent", "-n", "kube-system")
        self.plane.apiserver.kill()  # running watches would go on
        self.plane.start_apiserver()
        self.agent.wait(lambda: self.agent.has_problem("does not know us by our token"), "the problem", 60)
        self.assertTrue(self.agent.allows("a", "b"))
        self.plane.renew_token(self.token)
        self.assert_follows()

    def test_rights_that_are_missing(self):
        self.plane.kubectl("delete", "clusterrolebinding", "vsocket-agent")
        self.plane.apiserver.kill()
        self.plane.start_apiserver()
        self.agent.wait(lambda: self.agent.has_problem("networkpolicies: we are not allowed to list and watch", "403"), "the problem", 60)
        self.plane.make_account(self.token)
        self.assert_follows()

    def test_zz_another_authority(self):
        """Last: the control plane has another CA from here on."""
        self.plane.serve_with_another_authority()
        self.agent.wait(lambda: self.agent.has_problem("pods cannot be read", "certificate"), "the problem", 60)
        self.assertTrue(self.agent.allows("a", "b"))
        shutil.copy(self.plane.server_ca, self.ca + ".new")
        os.rename(self.ca + ".new", self.ca)
        self.assert_follows()

    def test_events_are_posted(self):
        done = run([os.path.join(BIN, "post_events"), SERVER, self.ca, self.token, "2", "1"])
        self.assertEqual(json.loads(done.stdout), {"posted": 2, "limited": 0, "dropped": 0})
        events = json.loads(self.plane.kubectl("get", "events.events.k8s.io", "-o", "json").stdout)["items"]
        ours = [event for event in events if event["reportingController"] == "vsocket.io/agent"]
        self.assertEqual({event["regarding"]["name"] for event in ours}, {"pod-0", "pod-1"})

    def test_long_a_server_that_is_gone_for_two_minutes(self):
        self.plane.apiserver.kill()
        self.plane.etcd.kill()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            self.assertTrue(self.agent.allows("a", "b"))
            time.sleep(1)
        self.assert_stale()
        self.plane.start_etcd()
        self.plane.start_apiserver()
        self.assert_follows()

    def test_long_thousands_of_pods(self):
        for first in range(0, 3000, 500):
            items = [pod(f"many-{number:04}", "10.0.0.1", app="many") for number in range(first, first + 500)]
            for item in items:
                del item["status"]
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
            run([os.path.join(self.plane.bin, "kubectl"), "--kubeconfig", self.plane.path("kubeconfig"), "create", "-f", "-"], input=text,
                timeout=300)
        self.agent.wait(lambda: self.agent.allows("many-0000", "many-2999") is not None, "all of them", 120)
        self.agent.stop()
        self.agent.start()
        began = time.monotonic()
        self.agent.wait(self.agent.ready, "the first state", 60)
        took = time.monotonic() - began
        print(f"3,000 pods are listed {took:.2f} s after the start, {self.agent.rss_mib():.0f} MiB resident", flush=True)
        self.assertIsNotNone(self.agent.allows("many-0000", "many-2999"))
        self.plane.kubectl("delete", "pods", "-l", "app=many", "--grace-period=0", "--force", "--wait=false")
        self.assert_follows(120)


def main():
    global BIN
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        binaries()  # before the namespaces: it needs the network
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)
    enter()
    BIN = os.path.abspath(sys.argv.pop(1))
    if "--all" not in sys.argv:
        for name in unittest.TestLoader().getTestCaseNames(RealApi):
            if name.startswith("test_long"):
                delattr(RealApi, name)
    unittest.main(argv=[word for word in sys.argv if word != "--all"], verbosity=2)


if __name__ == "__main__":
    main()
