#!/usr/bin/env python3
"""What goes wrong around real programs with the real shim: each fault leaves every connection whole, on TCP if need be, with the reason
told; and the ring comes back when the fault is over.

usage: faults_test.py BUILD_FOLDER [unittest arguments]
"""

import os
import signal
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

from fake_agent import FakeAgent, answers  # noqa: E402
from pods import Node  # noqa: E402
from procs import Process, wait_until, wait_written  # noqa: E402
from talk import Talker, serve  # noqa: E402

BUILD = ""
LEASE_SECONDS = 2
NO_AGENT, VERSION, POLICY, QUOTA, NO_MEMORY, NOT_ASKED = "3", "4", "5", "6", "7", "20"  # channel/reason.h


class FaultCase(unittest.TestCase):
    def node(self, *agent_flags):
        node = Node(build=BUILD, agent_flags=["--lease-seconds", str(LEASE_SECONDS), *agent_flags])
        node.__enter__()
        self.addCleanup(node.__exit__, None, None, None)
        node.start_agent()
        self.server, self.client = node.add_pod("server"), node.add_pod("client")
        return node

    def talker(self, pod=None, **options):
        talker = Talker(pod or self.client, self.server.ip, **options)
        self.addCleanup(talker.close)
        return talker

    def pass_the_lease(self, talker):
        """Talks on for longer than the lease: not a wait for anything, the fault's own length."""
        end = time.monotonic() + LEASE_SECONDS + 1.5
        while time.monotonic() < end:
            talker.talk()

    def assert_refused(self, talker, reason):
        stats = talker.finish()
        self.assertEqual((stats["upgraded"], stats["ring_tx"], stats["reasons"]), (0, 0, {reason: 1}))


class AgentFaults(FaultCase):
    def test_hung_agent(self):
        node = self.node()
        serve(self.server)
        before = self.talker()
        before.talk_until("ring")
        agent = node.agent.process.popen
        agent.send_signal(signal.SIGSTOP)
        os.waitpid(agent.pid, os.WUNTRACED)
        asks = self.talker()  # it asks, and is not answered
        asks.talk(200)
        self.pass_the_lease(before)
        asks.talk(200)
        agent.send_signal(signal.SIGCONT)
        before.talk_until("ring")
        asks.talk_until("ring")
        for talker in (before, asks):
            stats = talker.finish()
            self.assertGreater(stats["ring_rx"], 0)
            self.assertGreater(stats["tcp_rx"], 0)

    def test_sigterm_while_an_ask_is_unanswered(self):
        node = self.node()
        serve(self.server, shim=False)  # so that nobody asks for the other end
        talker = self.talker()
        talker.talk_until("upgrading")
        self.assertEqual(node.agent.stop(), 0)
        talker.talk(200)
        node.start_agent()
        talker.talk_until("upgrading")
        self.assertEqual(talker.finish()["ring_tx"], 0)

    def test_an_end_without_a_shim_is_told_apart(self):
        node = self.node()
        serve(self.server, shim=False)
        talker = self.talker()
        talker.talk(300)
        rows = node.agent.connections(pod=self.server.full_name, state="tcp")
        self.assertEqual([row["reason"] for row in rows], [int(NOT_ASKED)], rows)
        self.assertIn("no shim", rows[0]["reason_text"])
        self.assertEqual(talker.row()["state"], "upgrading")

    def test_restarted_without_its_policies(self):
        node = self.node()
        serve(self.server)
        talker = self.talker()
        talker.talk_until("ring")
        node.agent.kill()
        away = node.agent.cluster + "-away"
        os.rename(node.agent.cluster, away)
        node.agent.process = Process(node.agent.argv(), os.path.join(node.work, "agent.log"))
        wait_written(lambda: node.agent.process.has_said("agent ready"), "the agent", node.work, node.agent.process)
        self.assertTrue(node.agent.process.has_said("no policy known"))
        self.pass_the_lease(talker)
        row = talker.row()
        self.assertEqual((row["state"], row["reason"]), ("tcp", int(POLICY)), row)
        self.assertIn("NetworkPolicy", row["reason_text"])
        self.talker().talk(50)
        sent = row["tcp_sent"]
        talker.talk(10)
        self.assertGreaterEqual(talker.row()["tcp_sent"], sent + 10_000)
        os.rename(away, node.agent.cluster)
        talker.talk_until("ring", timeout=20)
        self.assertEqual(node.agent.ask("status").get("revocations", 0), 0)

    def test_pod_deleted_while_its_connections_live(self):
        node = self.node()
        other_server, other = node.add_pod("other-server"), node.add_pod("other")
        serve(self.server)
        serve(other_server)
        talker = self.talker()
        talker.talk_until("ring")
        unharmed = Talker(other, other_server.ip)
        self.addCleanup(unharmed.close)
        unharmed.talk_until("ring")
        node.chain.delete(self.server.attachment, self.server.result)
        self.assertIn(talker.ask("talk(1)"), ("end", "error 104"))
        unharmed.talk(200)
        talker.finish()
        wait_until(lambda: node.agent.ask("status").get("channels") == 1, "the channel to be forgotten")
        wait_until(lambda: node.agent.ask("status").get("regions") == 1, "its memory to be given back")
        self.assertEqual(unharmed.row()["state"], "ring")


class Shortages(FaultCase):
    def test_quota_used_up(self):
        for flags in (["--quota-channels", "1"], ["--quota-bytes", str(600 * 1024)]):
            with self.subTest(flags=flags):
                self.node(*flags)
                serve(self.server)
                first, second, third = (self.talker() for _ in range(3))
                first.talk_until("ring")
                for talker in (second, third):
                    talker.talk(200)
                    row = talker.row()
                    self.assertEqual((row["state"], row["reason"]), ("tcp", int(QUOTA)), row)
                self.assert_refused(third, QUOTA)
                first.finish()
                second.talk_until("ring")

    def test_full_dev_shm(self):
        self.node()
        fill = "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/full && exec \"$@\""
        serve(self.server)
        talker = self.talker(prefix=["unshare", "--mount", "--propagation", "private", "sh", "-c", fill, "-"])
        self.assertEqual(talker.ask("os.statvfs('/dev/shm').f_bfree"), "0")
        talker.talk_until("ring")

    def test_no_address_space_for_the_region(self):
        node = self.node()
        serve(self.server)
        talker = self.talker()
        # Enough for Python, not for a region.
        talker.ask("resource.setrlimit(resource.RLIMIT_AS, "
                   "(int(open('/proc/self/statm').read().split()[0]) * 4096 + (8 << 20), resource.RLIM_INFINITY))")
        talker.talk(300)
        self.assert_refused(talker, NO_MEMORY)
        wait_until(lambda: node.agent.ask("status").get("channels", 0) == 0, "the unused channel to be given back")

    def test_no_descriptor_for_the_line_to_the_agent(self):
        self.node()
        serve(self.server)
        talker = self.talker()
        talker.ask("resource.setrlimit(resource.RLIMIT_NOFILE, (s.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))")
        talker.talk(300)
        self.assertEqual(talker.row()["state"], "tcp")
        self.assert_refused(talker, NO_MEMORY)
        # The limit is raised: it goes up.
        talker = self.talker()
        talker.ask("resource.setrlimit(resource.RLIMIT_NOFILE, (s.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))")
        talker.talk(300)
        talker.ask("resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))")
        talker.talk_until("ring")

    def test_no_descriptor_for_the_memory(self):
        self.node()
        serve(self.server)
        talker = self.talker()
        # Room for the line, which is at a high number already when the memory comes: just below the limit it stays where it is.
        talker.ask("resource.setrlimit(resource.RLIMIT_NOFILE, (s.fileno() + 2, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))")
        talker.talk(300)
        self.assert_refused(talker, NO_MEMORY)

    def test_no_permission_on_the_socket(self):
        self.node()
        serve(self.server)
        os.chmod(os.path.join(self.client.folder, "agent.sock"), 0o600)
        os.chmod(self.server.node.work, 0o777)  # for the statistics
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        talker = self.talker(prefix=nobody, shim={"LD_PRELOAD": os.path.join(self.client.folder, "libvsocket.so")})
        talker.talk(200)
        self.assert_refused(talker, NO_AGENT)
        rpc = self.server.node.agent.socket
        argv = [*nobody, self.copied("vsocketctl"), "--agent-socket", rpc, "status"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (3, ""))
        self.assertIn("Permission denied", done.stderr)

    def copied(self, name):
        """Where everybody can run it."""
        path = os.path.join(self.server.node.work, name)
        subprocess.run(["cp", os.path.join(BUILD, "bin", name), path], check=True)
        return path

    def test_paths_that_fit_no_socket(self):
        self.node()
        serve(self.server)
        for path in ("/" + "x" * 200, "/" + "x" * 100_000, "/run/" + "y" * 102, ""):
            with self.subTest(length=len(path)):
                talker = self.talker(shim={"VSOCKET_AGENT": path})
                talker.talk(50)
                self.assert_refused(talker, NO_AGENT)


class StrangeAgents(FaultCase):
    def talk_to(self, answer):
        path = os.path.join(self.server.node.work, "fake.sock")
        with FakeAgent(path, answer) as fake:
            talker = self.talker(shim={"VSOCKET_AGENT": path})
            descriptors = int(talker.ask("len(os.listdir('/proc/self/fd'))"))
            talker.talk(300)
            wait_until(lambda: talker.talk() and fake.asked, "the shim to say something")
            talker.talk(300)
            # The line, and at most one that just came and is about to be closed.
            self.assertLessEqual(int(talker.ask("len(os.listdir('/proc/self/fd'))")), descriptors + 2)
        talker.talk(300)  # gone now
        return talker

    def test_each_is_plain_tcp(self):
        self.node()
        serve(self.server)
        for name, answer in answers().items():
            with self.subTest(agent=name):
                stats = self.talk_to(answer).finish()
                self.assertEqual((stats["upgraded"], stats["ring_tx"], stats["ring_rx"]), (0, 0, 0))

    def test_another_version_is_told_apart(self):
        self.node()
        serve(self.server)
        self.assert_refused(self.talk_to(answers()["another version"]), VERSION)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not os.access(os.path.join(sys.argv[1], "bin", "vsocket-agent"), os.X_OK):
        sys.exit(__doc__)
    BUILD = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
