#!/usr/bin/env python3
"""vsocket-agent follows an API server: what is in force when, bursts, objects that are not valid, Events, and who may ask.

usage: follow_test.py BIN_FOLDER [unittest arguments]
"""

import json
import os
import signal
import tempfile
import time
import unittest

from cluster_objects import deny_all, let_in, namespace, node, pod, policy
from fake_api import PLURALS, FakeApi, status
from fake_api_case import PATHS, Case, main, write
from procs import run


class CommandLine(unittest.TestCase):
    def refused(self, *flags):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
        with tempfile.TemporaryDirectory(prefix="vsk-kube-") as work:
            folders = [f"--run-dir={work}/run", f"--state-dir={work}/state", f"--spool-dir={work}/spool", "--http-listen", ""]
            argv = [os.path.join(PATHS["bin"], "vsocket-agent"), "--source=kube", *folders, *flags]
            done = run(argv, env=environment, check=False, timeout=20)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_what_cannot_work_is_told_at_the_start(self):
        self.assertIn("KUBERNETES_SERVICE_HOST is not set", self.refused())
        self.assertIn("must begin with https://", self.refused("--kube-server=http://127.0.0.1:6443"))
        self.assertIn("HOST:PORT and nothing more", self.refused("--kube-server=https://127.0.0.1:6443/api"))
        self.assertIn("go together", self.refused("--kube-server=https://127.0.0.1:6443", "--kube-cert-file=/x"))
        self.assertIn("cannot be the name of a Node", self.refused("--kube-server=https://127.0.0.1:6443", "--node-name=A/b"))


class FirstState(Case):
    def test_comes_when_every_kind_has_been_listed(self):
        for plural in PLURALS:
            with self.subTest(missing=plural):
                self.agent.stop()
                let_through = self.answer_lists(plural, lambda handler: handler.refuse(503, "ServiceUnavailable", "not yet"))
                self.start(ready=False)
                self.agent.wait(lambda: self.agent.has_problem(f"{plural} cannot be read: HTTP 503, not yet", "nothing is allowed yet"),
                                "the problem")
                self.assertFalse(self.agent.ready())
                let_through()
                self.agent.wait(self.agent.ready, "the first state")
        self.assert_follows()

    def test_a_policy_that_was_there_before_is_in_force_with_it(self):
        self.storage.put("networkpolicies", deny_all(app="b"))
        self.agent.start()
        self.agent.wait(self.agent.ready, "the first state")
        self.assertFalse(self.agent.allows("a", "b"))

    def test_many_pages(self):
        for number in range(1234):
            self.storage.put("pods", pod(f"p{number:04}", f"10.1.{number // 250}.{number % 250 + 1}"))
        self.start()
        self.assertTrue(self.agent.allows("p0000", "p1233"))
        paths = [path for _, path in self.api.asked("pods", False)]
        self.assertEqual([path.partition("continue=")[2] for path in paths], ["", "500", "1000"])
        self.assert_follows()

    def test_a_node_that_does_not_exist_is_told(self):
        self.storage.delete("nodes", "n1")
        self.start()
        self.assertTrue(self.agent.has_problem("there is no Node named \"n1\""), self.agent.problems())
        self.storage.put("nodes", node())
        self.assert_follows()


class Following(Case):
    def test_what_happens_in_the_cluster(self):
        self.start()
        self.storage.put("networkpolicies", let_in("from-a", "b", app="a"))
        self.storage.put("pods", pod("c", "10.0.0.3", app="c"))
        self.agent.wait(lambda: self.agent.allows("c", "b") is False, "c is refused")
        self.assertTrue(self.agent.allows("a", "b"))
        self.storage.put("pods", pod("c", "10.0.0.3", app="a"))  # labels change
        self.agent.wait(lambda: self.agent.allows("c", "b") is True, "c is let in")
        self.storage.delete("pods", "c")
        self.agent.wait(lambda: self.agent.allows("c", "b") is None, "c is gone")
        self.storage.delete("networkpolicies", "from-a")
        self.assert_follows()

    def test_a_burst_is_few_snapshots(self):
        self.start()
        before = self.agent.status()["revision"]
        os.kill(self.agent.process.pid, signal.SIGSTOP)  # so that they come together, however busy the machine is
        for number in range(1000):
            self.storage.put("pods", pod("c", "10.0.0.3", app=f"v{number}"))
        self.storage.put("networkpolicies", let_in("last", "b", app="v999"))
        os.kill(self.agent.process.pid, signal.SIGCONT)
        self.agent.wait(lambda: (self.agent.allows("a", "b"), self.agent.allows("c", "b")) == (False, True), "the last of them")
        self.assertLess(self.agent.status()["revision"] - before, 300)
        self.assertGreaterEqual(self.agent.metrics()["vsocket_kube_events_total"], 1001)

    def test_events_that_change_nothing_for_us_are_no_snapshot(self):
        self.start()
        before = self.agent.status()["revision"]
        for number in range(50):
            item = pod("a", "10.0.0.1", app="a")
            item["status"]["conditions"] = [{"type": "Ready", "status": str(number)}]
            self.storage.put("pods", item)
        self.agent.wait(lambda: self.agent.metrics()["vsocket_kube_events_total"] >= 50, "all events")
        self.assertEqual(self.agent.status()["revision"], before)

    def test_the_same_events_twice(self):
        self.start()

        def twice(handler):
            handler.begin_stream()
            with self.storage.changed:
                news = [entry for entry in self.storage.history if entry[1] == "pods"]
            for _, _, event in news + news:
                handler.send_event(event)
            handler.send_chunk(b"")

        self.storage.put("pods", pod("c", "10.0.0.3", app="c"))
        self.storage.delete("pods", "c")
        done = self.api.once("pods", True, twice)
        self.api.stop()
        self.api.start()
        self.wait_event(done, "a watch")
        self.assert_follows()
        self.assertIsNone(self.agent.allows("a", "c"))

    def test_an_address_that_goes_to_another_pod_within_a_second(self):
        self.storage.put("networkpolicies", deny_all(app="closed"))
        self.start()
        for round_number in range(20):
            name, other = f"x{round_number}", f"y{round_number}"
            self.storage.put("pods", pod(name, "10.0.0.9", app="closed"))
            self.storage.put("pods", pod(name, "10.0.0.9", app="closed", meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
            self.storage.put("pods", pod(other, "10.0.0.9", app="open"))
            self.agent.wait(lambda other=other: self.agent.allows("a", other) is True, "the new pod has the address to itself")
            self.storage.delete("pods", name)
            self.storage.delete("pods", other)
        self.assert_follows()


class Objects(Case):
    """The API server lets through what is not valid here."""

    def test_an_invalid_policy_closes_what_it_selects(self):
        self.start()
        self.storage.put("pods", pod("c", "10.0.0.3", app="c"))
        self.storage.put("networkpolicies", policy("odd", {"app": "b"}, ingress=[{"from": [{"ipBlock": {"cidr": "::ffff:10.0.0.0/104"}}]}]))
        self.agent.wait(lambda: self.agent.has_problem("NetworkPolicy default/odd", "is not a CIDR"), "the problem")
        self.assertFalse(self.agent.allows("a", "b"))
        self.assertFalse(self.agent.allows("b", "a"))
        self.assertTrue(self.agent.allows("a", "c"), "no other pod is concerned")
        self.storage.delete("networkpolicies", "odd")
        self.assert_follows()

    def test_wrong_types_everywhere(self):
        self.start()
        self.storage.put("pods", pod("c", "10.0.0.3", app="c"))
        bad = pod("b", "10.0.0.2", app="b")
        for spoil in (lambda: bad["spec"].update(containers=7), lambda: bad["status"].update(podIP=["10.0.0.2"]),
                      lambda: bad["metadata"].update(labels={"app": 7}), lambda: bad.update(spec=[])):
            spoil()
            self.storage.put("pods", bad)
            self.agent.wait(lambda: self.agent.has_problem("Pod default/b"), "the problem")
            self.assertFalse(self.agent.allows("a", "b"))
            self.assertTrue(self.agent.allows("a", "c"), "no other pod is concerned")
        self.storage.put("pods", pod("b", "10.0.0.2", app="b"))
        broken = namespace()
        broken["metadata"]["labels"] = ["x"]
        self.storage.put("namespaces", broken)
        self.agent.wait(lambda: self.agent.has_problem("Namespace default"), "the problem")
        self.assertFalse(self.agent.allows("a", "c"))
        self.storage.put("namespaces", namespace())
        for plural, item in (("services", {"spec": {"clusterIP": 7}}), ("endpointslices", {"endpoints": [7]}), ("nodes", {"status": []})):
            meta = {"name": "n1"} if plural == "nodes" else {"name": "odd", "namespace": "default"}
            self.storage.put(plural, {"metadata": meta, **item})
        self.agent.wait(lambda: len(self.agent.problems()) >= 3, "three problems")
        self.assertTrue(self.agent.allows("a", "c"))
        self.storage.delete("services", "odd")
        self.storage.delete("endpointslices", "odd")
        self.storage.put("nodes", node())
        self.assert_follows()

    def test_an_object_without_a_name_is_no_object(self):
        self.start()
        done = self.api.once("pods", True, lambda handler: (handler.begin_stream(), handler.send_event({"type": "ADDED", "object": {
            "metadata": {"resourceVersion": "999999"}}}), handler.send_chunk(b"")))
        self.api.stop()
        self.api.start()
        self.wait_event(done, "a watch")
        self.assert_follows()
        self.assertIn("an event that makes no sense: an object without a name", self.agent.process.output())


class Refusals(Case):
    def test_500_for_a_while_and_then_no_more(self):
        self.start()
        restore = self.api.fault(lambda handler: handler.refuse(500, "InternalError", "etcd is on fire"))
        self.api.stop()
        self.api.start()
        self.agent.wait(lambda: len(self.agent.problems()) == len(PLURALS), "a problem a kind")
        self.assertTrue(self.agent.has_problem("pods cannot be read: HTTP 500, etcd is on fire", "the last known state stays in force"))
        self.assertTrue(self.agent.allows("a", "b"), "the last known state stays in force")
        self.assertEqual(self.agent.metrics()["vsocket_kube_stale_kinds"], len(PLURALS))
        restore()
        self.assert_follows()

    def test_429_waits_as_long_as_it_is_asked_to(self):
        done = self.api.once("services", False, lambda handler: handler.refuse(429, "TooManyRequests", "slow down", [("Retry-After", "3")]))
        self.start(ready=False)
        self.wait_event(done, "a list of services")
        self.agent.wait(self.agent.ready, "the first state")
        first, second = [at for at, _ in self.api.asked("services", False)][:2]
        self.assertGreaterEqual(second - first, 3.0)
        self.assert_follows()

    def test_requests_become_rarer(self):
        restore = self.api.fault(lambda handler: handler.refuse(503, "ServiceUnavailable", "no"))
        self.start(ready=False)
        self.agent.wait(lambda: len(self.api.asked("pods", False)) >= 5, "five attempts")
        times = [at for at, _ in self.api.asked("pods", False)]
        self.assertGreater(times[4] - times[3], 2 * (times[1] - times[0]))
        restore()
        self.agent.wait(self.agent.ready, "the first state", 40)
        self.assert_follows()

    def test_403_is_told_in_words(self):
        restore = self.answer_lists("networkpolicies", lambda handler: handler.refuse(403, "Forbidden", "networkpolicies is forbidden"))
        self.start(ready=False)
        self.agent.wait(lambda: self.agent.has_problem("networkpolicies: we are not allowed to list and watch", "HTTP 403"), "the problem")
        restore()
        self.agent.wait(self.agent.ready, "the first state", 40)
        self.assert_follows()

    def test_a_rotated_token(self):
        self.start()
        self.api.token = "secret-2"
        self.api.stop()
        self.api.start()
        self.agent.wait(lambda: self.agent.has_problem("the API server does not know us by our token or certificate", "401"), "the problem")
        write(self.token, "secret-2\n")
        self.assert_follows(40)

    def test_a_token_file_that_is_no_token(self):
        self.start()
        write(self.token, "")
        self.api.stop()
        self.api.start()
        self.agent.wait(lambda: self.agent.has_problem(f"{self.token} is empty"), "the problem")
        write(self.token, "secret-1\r\nX-Injected: yes")
        self.agent.wait(lambda: self.agent.has_problem(f"{self.token} holds no token"), "the problem")
        write(self.token, "secret-1")
        self.assert_follows(40)

    def test_a_redirect_is_not_followed(self):
        self.start(ready=False)
        elsewhere = FakeApi(self.api.cert, self.api.key, self.storage).start()
        self.addCleanup(elsewhere.stop)
        restore = self.api.fault(lambda handler: handler.send_text(302, b"", [("Location", elsewhere.url + handler.path)]) or True)
        self.api.stop()
        self.api.start()
        self.agent.wait(lambda: self.agent.has_problem("HTTP 302"), "the problem")
        self.assertEqual(elsewhere.requests, [], "the token went nowhere else")
        restore()
        self.agent.wait(self.agent.ready, "the first state", 40)
        self.assert_follows()


class Events(Case):
    """Kubernetes Events, by the same poster that the agent uses."""

    def post(self, *words, timeout=60):
        done = run([os.path.join(PATHS["bin"], "post_events"), self.api.url, self.ca, self.token, *words], timeout=timeout)
        return json.loads(done.stdout)

    def test_they_arrive(self):
        self.assertEqual(self.post("3", "1"), {"posted": 3, "limited": 0, "dropped": 0})
        path, event = self.api.created[0]
        self.assertEqual(path, "/apis/events.k8s.io/v1/namespaces/default/events")
        self.assertEqual((event["regarding"]["name"], event["reason"], event["type"]), ("pod-0", "ConnectionCut", "Warning"))
        self.assertEqual(len({event["metadata"]["name"] for _, event in self.api.created}), 3)

    def test_one_pod_has_only_so_many(self):
        self.assertEqual(self.post("20", "0"), {"posted": 5, "limited": 15, "dropped": 0})

    def test_a_server_that_is_busy_is_asked_again(self):
        busy = self.api.once("events", False, lambda handler: handler.refuse(429, "TooManyRequests", "slow", [("Retry-After", "1")]))
        self.assertEqual(self.post("3", "1"), {"posted": 3, "limited": 0, "dropped": 0})
        self.assertTrue(busy.is_set())

    def test_what_the_server_refuses_is_dropped(self):
        self.api.fault(lambda handler: handler.refuse(403, "Forbidden", "no"))
        self.assertEqual(self.post("3", "1"), {"posted": 0, "limited": 0, "dropped": 3})


if __name__ == "__main__":
    main(__doc__)
