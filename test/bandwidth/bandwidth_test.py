#!/usr/bin/env python3
"""kubernetes.io/ingress-bandwidth and egress-bandwidth with real programs in pods: held on rings, shared fairly, without spinning, through
changes, faults and bad values; and what the kernel's shaper holds beside it.

usage: bandwidth_test.py BUILD_FOLDER [unittest arguments]
"""

import json
import os
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "agent"), os.path.join(HERE, "..", "lib")]

from pods import Node  # noqa: E402
from procs import read_stats, wait_until  # noqa: E402
from talk import Talker, serve  # noqa: E402

BUILD = ""
TOLERANCE = 0.05
PORT = 5201
SECONDS = 3
BAD_BANDWIDTH = 21  # channel/reason.h
EGRESS, INGRESS = "kubernetes.io/egress-bandwidth", "kubernetes.io/ingress-bandwidth"
TICKS = os.sysconf("SC_CLK_TCK")
CHECKING_CLIENT = os.path.join(HERE, "..", "..", "deploy", "demo", "checking_client.py")

# What a program meets that does not wait: EAGAIN, then EPOLLOUT by edge, or a send that times out. Prints bytes sent and CPU seconds.
SENDER = """
import resource, select, socket, struct, sys, time
how, address, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
s = socket.create_connection((address, 5201))
block = b"x" * 65536
sent, slept, timeouts = 0, 0, 0
def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
if how == "timeout":
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 20000))
elif how != "blocking":
    s.setblocking(False)
waiter = select.epoll() if how in ("level", "edge") else select.poll()
if how == "edge":
    waiter.register(s, select.EPOLLOUT | select.EPOLLET)
elif how in ("level", "poll"):
    waiter.register(s, select.POLLOUT)
deadline = time.monotonic() + 1 + seconds
begun = None
while time.monotonic() < deadline:
    if begun is None and time.monotonic() > deadline - seconds:
        begun, before, base = time.monotonic(), sent, cpu()
    try:
        sent += s.send(block)
    except BlockingIOError:
        if how == "timeout":
            timeouts += 1
            continue
        slept += 1
        waiter.poll(2000 if how == "poll" else 2)
took = time.monotonic() - begun
print("%d %.4f %.4f %d %d %d" % (sent - before, took, cpu() - base, slept, timeouts, sent))
s.close()
"""
SINK = """
import socket
listener = socket.create_server(("0.0.0.0", 5201))
s = listener.accept()[0]
total = 0
while True:
    part = s.recv(1 << 20)
    if not part:
        break
    total += len(part)
print("received", total, flush=True)
"""
# One thread sends, another receives, on one socket that both sleep on; then who sent checks what came back.
DUPLEX = """
import hashlib, os, socket, sys, threading
s = socket.create_connection((sys.argv[1], 7100), timeout=60)
size = int(sys.argv[2])
data = os.urandom(size)
back = hashlib.sha256()
def receive():
    left = size
    while left:
        part = s.recv(65536)
        if not part:
            break
        back.update(part)
        left -= len(part)
thread = threading.Thread(target=receive)
thread.start()
s.sendall(data)
thread.join()
print("same" if back.digest() == hashlib.sha256(data).digest() else "different")
"""


class BandwidthCase(unittest.TestCase):
    def node(self, sender=None, receiver=None, shape=False, flags=()):
        """A node with the pods self.sender and self.receiver, which have these annotations."""
        node = Node(build=BUILD, shape=shape, agent_flags=flags)
        node.__enter__()
        self.addCleanup(node.__exit__, None, None, None)
        node.start_agent()
        self.sender = node.add_pod("sender", annotations=sender or {})
        self.receiver = node.add_pod("receiver", annotations=receiver or {})
        self.stats = os.path.join(node.work, "stats")
        self.shim = {"VSOCKET_UPGRADE_AFTER": "0", "VSOCKET_STATS": self.stats}
        return node

    def annotate(self, node, pod, annotations):
        """A change that is in force when this returns."""
        pod.annotations = annotations
        node.write_pods()
        ways = {"ingress": annotations.get(INGRESS, ""), "egress": annotations.get(EGRESS, "")}

        def seen():
            row = next(row for row in node.agent.ask("pods")["pods"] if row["uid"] == pod.uid)
            return {way: row["bandwidth"][way] for way in ways} == ways

        wait_until(seen, "the annotation to be seen")

    def iperf(self, seconds=SECONDS, streams=1, shim=None, during=None):
        """Its report; what it moved was on rings when `shim` is not False. `during(client, server)` is called in the middle."""
        shim = self.shim if shim is None else shim
        server = self.receiver.start(["iperf3", "-s", "-1", "-p", PORT], shim=shim).wait_listening(PORT)
        # The first second is left out: what goes by TCP before the ring is not the ring's to limit.
        argv = ["iperf3", "-c", self.receiver.ip, "-p", PORT, "-t", seconds, "-O", 1, "-P", streams, "-J"]
        client = self.sender.start(argv, shim=shim)
        if during is not None:
            during(client, server)
        self.assertEqual(client.wait(seconds + 30), 0, client.output())
        self.assertEqual(server.wait(30), 0, server.output())
        return json.loads(client.output())

    def assert_held(self, limit, measure, attempts=3):
        """`measure` gives bits a second, which never exceed the limit; nor do they fall short of it, unless the machine is busy."""
        for attempt in range(attempts):
            bits = measure()
            self.assertLessEqual(bits, limit * (1 + TOLERANCE))
            if bits >= limit * (1 - TOLERANCE):
                return
            print(f"attempt {attempt + 1}: only {bits / 1e6:.2f} Mbit/s")
        self.fail(f"{bits / 1e6:.2f} Mbit/s is less than {limit / 1e6:.0f}")

    def received(self, report):
        return report["end"]["sum_received"]["bits_per_second"]

    def assert_on_rings(self, at_least):
        stats = read_stats(self.stats)
        self.assertGreaterEqual(stats["ring_rx"], at_least, stats)
        self.assertGreater(stats["upgraded"], 0)
        return stats

    def cpu_share(self, processes, seconds):
        """CPU seconds a second of each, over `seconds` from now: the length of a measurement, not a wait for anything."""
        before = [process.cpu_ticks() for process in processes]
        time.sleep(seconds)
        return [(process.cpu_ticks() - ticks) / TICKS / seconds for process, ticks in zip(processes, before)]


class Rates(BandwidthCase):
    def measure(self, bits, text, sender=None, receiver=None, cpu=None):
        node = self.node(sender, receiver)
        shares = []

        def during(client, server):
            time.sleep(1.5)  # past the start, into the measurement
            shares[:] = self.cpu_share([client, server, node.agent.process], SECONDS - 1.5)
            rows = node.agent.connections(pod=self.sender.full_name, state="ring")
            self.assertTrue(any(text in row["limited_by"] for row in rows), rows)

        def once():
            got = self.received(self.iperf(during=during))
            print(f"{text}: {got / 1e6:.2f} Mbit/s, CPU of sender, receiver, agent: {', '.join(f'{share:.1%}' for share in shares)}")
            return got

        self.assert_held(bits, once)
        self.assert_on_rings(bits / 8 * SECONDS * 0.9)
        for share in shares:
            self.assertLess(share, cpu)
        self.assertEqual(node.agent.ask("status").get("revocations", 0), 0)
        wait_until(lambda: node.agent.ask("status").get("channels", 0) == 0, "the channels to go")
        self.assertLess(self.cpu_share([node.agent.process], 1)[0], 0.03, "an agent that has nothing to do")

    def test_10_mbit_egress(self):
        self.measure(10e6, "egress-bandwidth 10M", sender={EGRESS: "10M"}, cpu=0.15)

    def test_100_mbit_egress(self):
        self.measure(100e6, "egress-bandwidth 100M", sender={EGRESS: "100M"}, cpu=0.25)

    def test_1_gbit_egress(self):
        self.measure(1e9, "egress-bandwidth 1G", sender={EGRESS: "1G"}, cpu=0.5)

    def test_10_mbit_ingress(self):
        self.measure(10e6, "ingress-bandwidth 10M", receiver={INGRESS: "10M"}, cpu=0.15)

    def test_100_mbit_ingress_below_an_egress_limit(self):
        self.measure(100e6, "ingress-bandwidth 100M", sender={EGRESS: "1G"}, receiver={INGRESS: "100M"}, cpu=0.25)

    def test_the_other_direction_and_other_pods_are_not_limited(self):
        node = self.node(sender={INGRESS: "10M"}, receiver={EGRESS: "10M"})
        self.assertGreater(self.received(self.iperf(seconds=1)), 500e6)
        self.assertEqual(node.agent.ask("status").get("revocations", 0), 0)


class Fairness(BandwidthCase):
    def test_four_connections_share_a_limit(self):
        self.node(sender={EGRESS: "100M"})

        def once():
            report = self.iperf(streams=4)
            rates = [stream["receiver"]["bits_per_second"] for stream in report["end"]["streams"]]
            jain = sum(rates) ** 2 / (len(rates) * sum(rate**2 for rate in rates))
            print(f"4 connections: {[round(rate / 1e6, 2) for rate in rates]} Mbit/s, Jain {jain:.4f}")
            self.assertGreater(jain, 0.98)
            return self.received(report)

        self.assert_held(100e6, once)
        self.assert_on_rings(100e6 / 8 * SECONDS * 0.9)


class Senders(BandwidthCase):
    def send(self, how):
        sink = self.receiver.start([sys.executable, "-c", SINK], shim=self.shim).wait_listening(PORT)
        done = self.sender.run([sys.executable, "-c", SENDER, how, self.receiver.ip, SECONDS], shim=self.shim)
        moved, took, cpu, slept, timeouts, total = (float(word) for word in done.stdout.split())
        print(f"{how}: {moved * 8 / took / 1e6:.2f} Mbit/s, CPU {cpu / took:.1%}, {slept:.0f} waits, {timeouts:.0f} timeouts")
        self.assertEqual(sink.wait(30), 0)
        self.assertEqual(sink.output(), f"received {total:.0f}\n")
        self.assertLess(cpu / took, 0.2)
        self.assertLess(slept, 400 * (SECONDS + 1) if how in ("level", "edge", "poll") else 1)
        self.assertTrue(how == "timeout" or timeouts == 0)
        return moved * 8 / took

    def test_every_way_of_waiting_for_room(self):
        self.node(sender={EGRESS: "20M"})
        for how in ("blocking", "level", "edge", "poll", "timeout"):
            with self.subTest(how=how):
                self.assert_held(20e6, lambda how=how: self.send(how))
        self.assert_on_rings(20e6 / 8 * SECONDS * 5 * 0.9)

    def test_two_threads_sleep_on_one_socket(self):
        self.node(sender={EGRESS: "80M"}, receiver={EGRESS: "80M"})
        serve(self.receiver, shim=self.shim)
        size = 20_000_000
        begun = time.monotonic()
        done = self.sender.run([sys.executable, "-c", DUPLEX, self.receiver.ip, size], shim=self.shim)
        took = time.monotonic() - begun
        self.assertEqual(done.stdout, "same\n")
        self.assertGreater(took, size * 8 / 80e6 * 0.5)
        self.assert_on_rings(size * 0.5)

    def test_small_requests_under_a_limit_are_quick(self):
        node = self.node(sender={EGRESS: "10M"}, receiver={EGRESS: "10M"})
        serve(self.receiver)
        talker = Talker(self.sender, self.receiver.ip)
        self.addCleanup(talker.close)
        talker.talk_until("ring")
        begun = time.monotonic()
        talker.ask("talk(300, 100)")
        each = (time.monotonic() - begun) / 300
        print(f"300 requests of 100 bytes: {each * 1e6:.0f} us each")
        self.assertLess(each, 0.005)
        for _ in range(5):
            time.sleep(0.3)  # so that the agent leaves it alone: what comes next has to ask
            self.assertEqual(talker.ask("talk(1, 20000)"), "ok")
        self.assertGreater(talker.finish()["ring_tx"], 0)
        wait_until(lambda: node.agent.ask("status").get("channels", 0) == 0, "the channels to go")


class Changes(BandwidthCase):
    def test_an_annotation_changes_under_a_live_connection(self):
        node = self.node()
        sink = self.receiver.start([sys.executable, "-c", SINK], shim=self.shim).wait_listening(PORT)
        sender = self.sender.start([sys.executable, "-c", SENDER, "blocking", self.receiver.ip, 30], shim=self.shim)

        def rate(seconds):
            def moved():
                rows = node.agent.connections(pod=self.sender.full_name)
                return time.monotonic(), rows[0]["ring_sent"]

            begun, before = moved()
            time.sleep(seconds)
            ended, after = moved()
            return (after - before) * 8 / (ended - begun)

        wait_until(lambda: node.agent.connections(pod=self.sender.full_name, state="ring"), "the ring")
        self.assertGreater(rate(0.3), 500e6)
        for annotations, wanted in (({EGRESS: "50M"}, 50e6), ({EGRESS: "10M"}, 10e6), ({EGRESS: "100M"}, 100e6)):
            self.annotate(node, self.sender, annotations)
            time.sleep(0.3)  # what was granted before is used up, or not

            def once(text=annotations[EGRESS]):
                got = rate(2)
                print(f"changed to {text}: {got / 1e6:.2f} Mbit/s")
                return got

            self.assert_held(wanted, once)
        self.annotate(node, self.receiver, {INGRESS: "20M"})
        time.sleep(0.3)
        self.assert_held(20e6, lambda: rate(2))
        self.annotate(node, self.sender, {})
        self.annotate(node, self.receiver, {})
        self.assertGreater(rate(0.3), 500e6)
        self.assertTrue(sender.alive(), sender.output())
        self.assertTrue(sink.alive())

    def test_a_value_that_is_none_keeps_the_pod_on_tcp_and_is_told(self):
        node = self.node()
        serve(self.receiver)
        live = Talker(self.sender, self.receiver.ip)
        self.addCleanup(live.close)
        live.talk_until("ring")
        self.sender.annotations = {EGRESS: "10MB"}
        node.write_pods()
        wait_until(lambda: node.agent.ask("status").get("problems"), "the problem to be told")
        self.assertIn("10MB", node.agent.ask("status")["problems"][0]["what"])
        live.talk(50)
        sent = live.row()["tcp_sent"]
        live.talk(20)
        self.assertGreaterEqual(live.row()["tcp_sent"], sent + 20_000, "a live one has gone down to TCP")
        other = Talker(self.sender, self.receiver.ip)
        self.addCleanup(other.close)
        other.talk(100)
        row = other.row()
        self.assertEqual((row["state"], row["reason"]), ("tcp", BAD_BANDWIDTH), row)
        self.annotate(node, self.sender, {EGRESS: "100M"})
        live.talk_until("ring")
        sent = live.row()["ring_sent"]
        wait_until(lambda: live.talk() and live.row()["ring_sent"] > sent, "bytes on the ring again", timeout=20)


class Faults(BandwidthCase):
    def test_the_agent_is_killed_under_a_limited_sender(self):
        node = self.node(sender={EGRESS: "10M"}, receiver={EGRESS: "10M"}, flags=["--lease-seconds", "30"])
        serve(self.receiver)
        talker = Talker(self.sender, self.receiver.ip)
        self.addCleanup(talker.close)
        talker.talk_until("ring")
        for _ in range(3):
            self.assertEqual(talker.ask("talk(1, 200000)"), "ok")
            node.agent.kill()
            begun = time.monotonic()
            self.assertEqual(talker.ask("talk(10, 200000)"), "ok")
            self.assertLess(time.monotonic() - begun, 10, "it went on by TCP, long before the lease was over")
            node.agent.start()
            talker.talk_until("ring", timeout=20)
        self.assertEqual(talker.ask("talk(1, 400000)"), "ok")
        self.assertEqual(node.agent.ask("status").get("revocations", 0), 0)
        self.assertGreater(talker.finish()["ring_tx"], 0)

    def test_redis_loses_nothing(self):
        node = self.node(sender={EGRESS: "20M"}, receiver={EGRESS: "40M"})
        redis = ["redis-server", "--port", 6379, "--save", "", "--protected-mode", "no"]
        self.receiver.start(redis, shim=self.shim).wait_listening(6379)
        argv = [sys.executable, CHECKING_CLIENT, self.receiver.ip, "6379"]
        clients = [self.sender.start([*argv, f"client{i}"], shim=self.shim) for i in range(4)]
        time.sleep(4)  # the length of the test
        node.agent.kill()
        node.agent.start()
        time.sleep(3)
        for client in clients:
            client.stop(timeout=20)
            self.assertEqual(client.popen.returncode, 0, client.output()[-500:])
            self.assertIn("verified", client.output())
        self.assertEqual(node.agent.ask("status").get("revocations", 0), 0)
        node.stop_processes()
        self.assert_on_rings(1_000_000)


class Kernel(BandwidthCase):
    """The cluster's own bandwidth plugin (tc: tbf and ifb) in the chain before vsocket's."""

    def test_the_plugin_holds_tcp_and_the_agent_the_ring(self):
        self.node(sender={EGRESS: "50M"}, shape=True)
        plain = self.received(self.iperf(shim=False))
        print(f"50M: by the kernel's path {plain / 1e6:.2f} Mbit/s")
        self.assertLess(plain, 50e6 * 1.05)
        self.assertGreater(plain, 50e6 * 0.5, "headers count there")

        def once():
            ring = self.received(self.iperf())
            print(f"50M: by rings {ring / 1e6:.2f} Mbit/s")
            return ring

        self.assert_held(50e6, once)
        self.assert_on_rings(50e6 / 8 * SECONDS * 0.9)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not os.path.isdir(sys.argv[1]):
        sys.exit(__doc__)
    BUILD = sys.argv.pop(1)
    unittest.main(verbosity=2)
