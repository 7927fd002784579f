#!/usr/bin/env python3
"""vsocket-agent against an API server that misbehaves in every way we could think of, over TLS.

Every case ends with the proof that the agent follows again: a policy is put, and the agent's verdict changes.

usage: faults_test.py BIN_FOLDER [unittest arguments]
"""

import json
import os
import shutil
import time

from certificates import Authority
from cluster_objects import deny_all, pod
from fake_api import PLURALS, status
from fake_api_case import PATHS, Case, main


class Gone(Case):
    def test_410_as_an_answer(self):
        self.start()
        lists = len(self.api.asked("pods", False))
        self.end_watches()
        self.assert_follows()
        self.assertGreater(len(self.api.asked("pods", False)), lists)

    def test_410_as_an_event(self):
        self.start()
        lists = self.agent.metrics()["vsocket_kube_lists_total"]

        def gone(handler):
            handler.begin_stream()
            handler.send_event({"type": "ERROR", "object": status(410, "Expired", "too old resource version")})
            handler.send_chunk(b"")

        done = self.api.once("networkpolicies", True, gone)
        self.api.stop()
        self.api.start()
        self.wait_event(done, "a watch")
        self.assert_follows()
        self.assertGreaterEqual(self.agent.metrics()["vsocket_kube_lists_total"], lists + 1)

    def test_a_continue_token_that_expires(self):
        for number in range(1200):
            self.storage.put("pods", pod(f"p{number:04}", f"10.1.{number // 250}.{number % 250 + 1}"))
        forget = self.api.fault(lambda handler: "continue" in handler.query and
                                (handler.refuse(410, "Expired", "The provided continue parameter is too old")))
        self.start()
        self.assertTrue(self.agent.allows("p0000", "p1199"))
        self.assertNotIn("limit=", self.api.asked("pods", False)[-1][1])
        forget()
        self.assert_follows()


class Trust(Case):
    def test_a_rotated_authority(self):
        self.start()
        other = Authority(self.work, "other")
        self.api.stop()
        self.api.cert, self.api.key = other.issue("other-server", "/CN=kube-apiserver")
        self.api.start()
        self.agent.wait(lambda: self.agent.has_problem("pods cannot be read", "certificate"), "the problem")
        self.assertTrue(self.agent.allows("a", "b"))
        shutil.copy(other.cert, self.ca + ".new")
        os.rename(self.ca + ".new", self.ca)
        self.assert_follows(40)
        # The former one is trusted no longer.
        self.api.stop()
        self.api.cert, self.api.key = os.path.join(PATHS["pki"], "server.crt"), os.path.join(PATHS["pki"], "server.key")
        self.api.start()
        self.agent.wait(lambda: self.agent.has_problem("pods cannot be read", "certificate"), "the problem")

    def test_a_certificate_for_another_name(self):
        self.start()
        other = Authority(self.work, "other")
        self.api.stop()
        self.api.cert, self.api.key = other.issue("other-server", "/CN=kube-apiserver", "DNS:elsewhere.example")
        shutil.copy(other.cert, self.ca)
        self.api.start()
        self.agent.wait(lambda: self.agent.has_problem("pods cannot be read"), "the problem")
        self.assertTrue(self.agent.allows("a", "b"))


class Connections(Case):
    def test_a_server_that_is_gone_for_a_while(self):
        self.storage.put("networkpolicies", deny_all(app="b"))
        self.agent.start()
        self.agent.wait(self.agent.ready, "the first state")
        self.api.stop()
        self.agent.wait(lambda: len(self.agent.problems()) == len(PLURALS), "a problem a kind")
        self.assertTrue(self.agent.has_problem("the last known state stays in force"))
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            self.assertEqual((self.agent.allows("a", "b"), self.agent.allows("b", "a")), (False, True))
        self.assertTrue(self.agent.ready())
        self.storage.delete("networkpolicies", "closed")  # meanwhile
        self.api.start()
        self.agent.wait(lambda: self.agent.allows("a", "b") is True, "what happened meanwhile", 40)
        self.agent.wait(lambda: not self.agent.problems(), "the end of the problems", 40)
        self.assert_follows()

    def test_a_connection_that_is_reset_in_the_middle_of_an_event(self):
        self.start()
        lists = self.agent.metrics()["vsocket_kube_lists_total"]

        def half(handler):
            with self.storage.changed:
                event = json.dumps(self.storage.history[-1][2]).encode()
            handler.begin_stream()
            handler.send_chunk(event[: len(event) // 2])
            handler.reset()

        self.storage.put("pods", pod("c", "10.0.0.3", app="c"))
        for _ in range(3):
            done = self.api.once("pods", True, half)
            self.api.stop()
            self.api.start()
            self.wait_event(done, "a watch")
        self.assert_follows()
        self.assertTrue(self.agent.allows("a", "c"))
        self.assertEqual(self.agent.metrics()["vsocket_kube_lists_total"], lists, "nothing had to be listed again")

    def test_a_reset_instead_of_an_answer(self):
        restore = self.api.fault(lambda handler: handler.reset() or True)
        self.start(ready=False)
        self.agent.wait(lambda: len(self.agent.problems()) == len(PLURALS), "a problem a kind")
        restore()
        self.agent.wait(self.agent.ready, "the first state", 40)
        self.assert_follows()

    def test_a_server_that_accepts_and_says_nothing(self):
        silent = self.answer_lists("pods", lambda handler: time.sleep(20))
        self.start(ready=False)
        self.agent.wait(lambda: self.agent.has_problem("pods cannot be read: nothing came for 2 s"), "the problem")
        silent()
        self.agent.wait(self.agent.ready, "the first state", 40)
        self.assert_follows()

    def test_a_watch_that_falls_silent(self):
        def silent(handler):
            handler.begin_stream()
            time.sleep(25)

        done = self.api.once("networkpolicies", True, silent)
        self.start()
        self.wait_event(done, "a watch")
        self.assert_follows(30)  # by the next one, after ten seconds
        self.assertEqual(self.agent.problems(), [])

    def test_lists_that_trickle(self):
        def trickle(handler):
            text = json.dumps(handler.page()).encode()
            handler.begin_stream()
            for begin in range(0, len(text), 100):
                handler.send_chunk(text[begin:begin + 100])
                time.sleep(0.05)
            handler.send_chunk(b"")

        self.answer_lists("pods", trickle)
        self.start()
        self.assert_follows()

    def test_events_that_trickle(self):
        def trickle(handler):
            handler.begin_stream()
            since = int(handler.query["resourceVersion"])
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and not self.api.closing:
                with self.storage.changed:
                    news = [entry for entry in self.storage.history if entry[0] > since and entry[1] == "networkpolicies"]
                for version, _, event in news:
                    for byte in json.dumps(event).encode():
                        handler.send_chunk(bytes([byte]))
                    since = version
                time.sleep(0.02)

        self.answer_watches("networkpolicies", trickle)
        self.start()
        self.assert_follows()


class Nonsense(Case):
    """What is no answer of an API server leads to a new list, and never to a change."""

    def nonsense_in_lists(self, text, said, **how):
        self.start()
        restore = self.answer_lists("networkpolicies", lambda handler: handler.send_text(200, text, **how))
        self.end_watches()
        self.agent.wait(lambda: self.agent.has_problem("networkpolicies cannot be read", said), "the problem")
        self.assertTrue(self.agent.allows("a", "b"), "the last known state stays in force")
        restore()
        self.assert_follows(40)

    def test_html(self):
        self.nonsense_in_lists(b"<html>hotel login</html>", "an answer that makes no sense")

    def test_half_a_list(self):
        self.nonsense_in_lists(b'{"metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"x"', "a list that ends too soon")

    def test_a_list_without_a_version(self):
        self.nonsense_in_lists(b'{"metadata":{},"items":[]}', "a list without a resourceVersion")

    def test_items_that_are_no_objects(self):
        self.nonsense_in_lists(b'{"metadata":{"resourceVersion":"5"},"items":[1,2]}', "an item that is no object")

    def test_an_answer_shorter_than_it_says(self):
        self.start()

        def short(handler):
            handler.send_response(200)
            handler.send_header("Content-Length", "100000")
            handler.end_headers()
            handler.wfile.write(b'{"metadata":{"resourceVersion":"5"},"items":[')
            handler.close_connection = True

        restore = self.answer_lists("networkpolicies", short)
        self.end_watches()
        self.agent.wait(lambda: self.agent.has_problem("networkpolicies cannot be read"), "the problem")
        restore()
        self.assert_follows(40)

    def test_events_that_are_none(self):
        self.start()
        for text in (b"garbage\n", b"[]\n", b'{"type":"ADDED"}\n',
                     b'{"type":"EXPLODED","object":{"metadata":{"name":"x","resourceVersion":"9"}}}\n',
                     b'{"type":"BOOKMARK","object":{}}\n', b'{"type":"ADDED","object":{"metadata":{"name":"\xff"}}}\n',
                     b'{"type":"ERROR","object":{"code":500,"message":"storage is (re)initializing"}}\n', b"{" * 1000 + b"\n"):
            with self.subTest(text=text[:40]):
                done = self.api.once("networkpolicies", True,
                                     lambda handler, text=text: (handler.begin_stream(), handler.send_chunk(text), handler.send_chunk(b"")))
                self.api.stop()
                self.api.start()
                self.wait_event(done, "a watch")
                self.assert_follows(40)

    def test_an_event_and_an_item_that_never_end(self):
        self.start()
        before = self.agent.rss_mib()
        sent = [0]

        def endless(handler, prefix):
            handler.begin_stream()
            handler.send_chunk(prefix)
            while sent[0] < 512:
                handler.send_chunk(b"x" * (1 << 20))
                sent[0] += 1

        done = self.api.once("networkpolicies", True, lambda handler: endless(handler, b'{"type":"ADDED","object":{"metadata":{"name":"'))
        self.api.stop()
        self.api.start()
        self.wait_event(done, "a watch")
        self.assert_follows(40)
        self.assertLess(sent[0], 100, "it has heard enough of it")
        sent[0] = 0
        done = self.api.once("networkpolicies", False, lambda handler: endless(handler, b'{"metadata":{},"items":[{"metadata":{"name":"'))
        self.end_watches()
        self.wait_event(done, "a list")
        self.assert_follows(40)
        self.assertLess(sent[0], 100, "it has heard enough of it")
        self.assertLess(self.agent.rss_mib() - before, 64)

    def test_a_list_that_goes_round_in_circles(self):
        self.start()
        text = json.dumps({"metadata": {"resourceVersion": "5", "continue": "again"}, "items": []}).encode()
        restore = self.answer_lists("networkpolicies", lambda handler: handler.send_text(200, text))
        self.end_watches()
        self.agent.wait(lambda: self.agent.has_problem("networkpolicies cannot be read: a list that goes round in circles"), "the problem")
        restore()
        self.assert_follows(40)


if __name__ == "__main__":
    main(__doc__)
