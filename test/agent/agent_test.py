#!/usr/bin/env python3
"""vsocket-agent itself: what its command line answers, what it refuses to start on, what it finds and leaves in its directories, and what
it serves by HTTP.

usage: agent_test.py BIN_FOLDER [unittest arguments]
"""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "cni"), os.path.join(HERE, "..", "lib")]

from lab import enter  # noqa: E402
from procs import Process, wait_until  # noqa: E402

BIN = ""
HTTP = "127.0.0.1:9809"  # free: the test has a network namespace of its own
HOLD_NETNS = """
import socket, sys
SO_NETNS_COOKIE = 71
print(int.from_bytes(socket.socket().getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little"), flush=True)
sys.stdin.read()
"""
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


def program(name):
    return os.path.join(BIN, name)


def run_agent(*flags):
    """For an agent that is to end by itself."""
    return subprocess.run([program("vsocket-agent"), *flags], capture_output=True, text=True, timeout=20, check=False)


def get(path):
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://{HTTP}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class CommandLine(unittest.TestCase):
    def test_help_names_every_flag_and_its_default(self):
        done = run_agent("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for flag in ("--run-dir", "--state-dir", "--cluster-dir", "--http-listen", "--lease-seconds", "--strict-revocation"):
            self.assertIn(flag, done.stdout)
        self.assertIn("/run/vsocket", done.stdout)
        self.assertIn("SIGTERM", done.stdout)

    def test_version_is_a_number(self):
        done = run_agent("--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^\d+\.\d+\.\d+\n$")

    def test_what_makes_no_sense_is_2_and_named(self):
        for flags, named in (
            (["--moon"], "--moon"),
            (["word"], "word"),
            (["--lease-seconds", "1"], "--lease-seconds"),
            (["--lease-seconds", "ten"], "--lease-seconds"),
            (["--log-level", "loud"], "--log-level"),
            (["--enforcement", "maybe"], "--enforcement"),
            (["--source", "moon"], "--source"),
            (["--kube-timeout-seconds", "0"], "--kube-timeout-seconds"),
            (["--revocation-deadline-ms", "1"], "--revocation-deadline-ms"),
            (["--run-dir"], "--run-dir"),
        ):
            with self.subTest(flags=flags):
                done = run_agent(*flags)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(named, done.stderr)


TWO_PORTS_OF_ONE_NAME = """\
apiVersion: v1
kind: Pod
metadata: {name: unclear, namespace: default}
spec:
  containers:
  - {name: one, ports: [{name: http, containerPort: 8080}]}
  - {name: two, ports: [{name: http, containerPort: 8081}]}
"""


class AgentCase(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="vsk-agent-")
        self.addCleanup(shutil.rmtree, self.work)
        os.mkdir(self.path("cluster"))
        self.logs = 0

    def path(self, *names):
        return os.path.join(self.work, *names)

    def flags(self, **changed):
        values = {
            "run_dir": self.path("run"),
            "state_dir": self.path("state"),
            "spool_dir": self.path("spool"),
            "cluster_dir": self.path("cluster"),
            "http_listen": HTTP,
            "shim_library": "",
            "log_format": "json",
        } | changed
        return [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), value)]

    def start(self, **changed):
        self.logs += 1
        agent = Process([program("vsocket-agent"), *self.flags(**changed)], self.path(f"log{self.logs}"))
        self.addCleanup(agent.kill)
        wait_until(lambda: not agent.alive() or "agent ready" in agent.output(), "the agent to be ready")
        self.assertTrue(agent.alive(), agent.output())
        return agent

    def refused(self, **changed):
        """What an agent that cannot start says."""
        done = run_agent(*self.flags(**changed))
        self.assertEqual(done.returncode, 1, done.stderr)
        line = json.loads((done.stdout + done.stderr).strip().splitlines()[-1])
        self.assertEqual((line["level"], line["msg"]), ("error", "cannot start"))
        return line["why"]

    def status(self):
        argv = [program("vsocketctl"), "--agent-socket", self.path("run", "agent-rpc.sock"), "-o", "json", "status"]
        return json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout)


class Refusals(AgentCase):
    def setUp(self):
        super().setUp()
        with open(self.path("file"), "w", encoding="utf-8"):
            pass

    def test_directories_that_are_none(self):
        self.assertIn(self.path("file"), self.refused(state_dir=self.path("file")))
        self.assertIn(self.path("file"), self.refused(run_dir=self.path("file")))
        self.assertIn(self.path("file", "deeper"), self.refused(state_dir=self.path("file", "deeper")))

    def test_a_state_directory_that_may_not_be_read(self):
        state, run = self.path("state"), self.path("run")
        os.mkdir(state, 0o700)
        os.mkdir(run)
        for folder in (self.work, run):
            os.chmod(folder, 0o777)
        # Another user, so that the directory's mode counts; the program is copied to where that user can reach it.
        copy = shutil.copy(program("vsocket-agent"), self.path("vsocket-agent"))
        os.chown(run, 65534, 65534)
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", copy, *self.flags()]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(state, done.stdout + done.stderr)
        self.assertIn("denied", done.stdout + done.stderr)

    def test_paths_that_are_too_long_for_a_socket(self):
        deep = self.path(*(["d" * 40] * 3))
        why = self.refused(rpc_socket=os.path.join(deep, "rpc.sock"))
        self.assertIn("too long for a UNIX socket", why)
        why = self.refused(run_dir=deep)
        self.assertIn("too long for a UNIX socket", why)

    def test_an_address_that_is_none_or_taken(self):
        self.assertIn("nonsense", self.refused(http_listen="nonsense"))
        with socket.create_server(("127.0.0.1", 9809)):
            self.assertIn(HTTP, self.refused())

    def test_a_second_agent_and_the_first_goes_on(self):
        self.start()
        why = self.refused(http_listen="127.0.0.1:9810")
        self.assertIn("another vsocket-agent is running on " + self.path("run"), why)
        # Directories of its own, but the same socket for the CNI plugin.
        why = self.refused(http_listen="127.0.0.1:9810", run_dir=self.path("run2"), rpc_socket=self.path("run", "agent-rpc.sock"))
        self.assertIn(self.path("run", "agent-rpc.sock"), why)
        self.assertTrue(self.status()["ready"])


    def test_of_many_agents_started_at_once_one_runs_and_the_others_say_so(self):
        agents = [Process([program("vsocket-agent"), *self.flags(http_listen="")], self.path(f"many{number}")) for number in range(6)]
        for agent in agents:
            self.addCleanup(agent.kill)
        wait_until(lambda: sum(agent.alive() for agent in agents) == 1, "all but one to end")
        wait_until(lambda: sum("agent ready" in agent.output() for agent in agents) == 1, "the one to be ready")
        for agent in agents:
            if agent.alive():
                self.assertIn("agent ready", agent.output())
                continue
            self.assertEqual(agent.wait(), 1)
            self.assertIn("another vsocket-agent is running on " + self.path("run"), agent.output())
        self.assertTrue(self.status()["ready"])


class Life(AgentCase):
    def test_sigterm_and_sigint_are_a_clean_end(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number):
                agent = self.start()
                rpc = self.path("run", "agent-rpc.sock")
                self.assertEqual(stat.S_IMODE(os.stat(rpc).st_mode), 0o600)
                agent.popen.send_signal(number)
                self.assertEqual(agent.wait(10), 0, agent.output())
                self.assertIn("agent ends", agent.output())
                self.assertFalse(os.path.exists(rpc))
                for line in agent.output().splitlines():
                    self.assertIn(json.loads(line)["level"], ("info", "warning"), line)

    def test_sockets_that_a_killed_agent_left_are_replaced(self):
        pod = self.stored_pod()
        first = self.start()
        rpc, control = self.path("run", "agent-rpc.sock"), self.path("run", "pods", pod, "agent.sock")
        self.assertTrue(os.path.exists(control), first.output())
        first.kill()
        self.assertTrue(os.path.exists(rpc) and os.path.exists(control), "left by the kill")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            self.assertRaises(ConnectionRefusedError, probe.connect, control)
        self.start()
        self.assertEqual(self.status()["pods"], 1)
        self.assertEqual(stat.S_IMODE(os.stat(control).st_mode), 0o666)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.connect(control)

    def test_a_stored_pod_that_cannot_be_read_is_named_and_stops_nothing(self):
        os.mkdir(self.path("state"), 0o700)
        with open(self.path("state", "broken.json"), "w", encoding="utf-8") as stream:
            stream.write('{"format": 1, "uid": ')
        agent = self.start()
        self.assertIn("stored pod not understood", agent.output())
        self.assertIn("broken.json", agent.output())
        self.assertEqual(self.status().get("pods", 0), 0)

    def stored_pod(self):
        """A pod that an earlier agent knew, in the network namespace of a sleeping process. Gives its uid."""
        argv = ["unshare", "--net", sys.executable, "-c", HOLD_NETNS]
        holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.communicate)
        cookie = int(holder.stdout.readline())
        netns = f"/proc/{holder.pid}/ns/net"
        os.mkdir(self.path("state"), 0o700)
        record = {"format": 1, "uid": "uid-kept", "namespace": "default", "name": "kept", "containerID": "kept-sandbox", "ifname": "eth0",
                  "netns": netns, "netnsCookie": cookie, "netnsInode": os.stat(netns).st_ino, "ips": ["10.85.0.9"]}
        with open(self.path("state", "uid-kept.json"), "w", encoding="utf-8") as stream:
            json.dump(record, stream)
        return "uid-kept"


class Http(AgentCase):
    def test_health_metrics_and_nothing_else(self):
        agent = self.start()
        self.assertEqual(get("/healthz"), (200, "ok\n"))
        self.assertEqual(get("/readyz"), (200, "ready\n"))
        code, text = get("/metrics")
        self.assertEqual(code, 200)
        for name in ("vsocket_channels", "vsocket_revocations_total", "vsocket_revoked_regions_still_mapped_total",
                     "vsocket_channel_ends_swept_total"):
            self.assertRegex(text, rf"(?m)^{name} 0$")
        # One HELP and one TYPE a name, and no value without.
        names = re.findall(r"(?m)^# TYPE (\S+) (?:counter|gauge)$", text)
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(sorted(names), sorted(re.findall(r"(?m)^# HELP (\S+) ", text)))
        self.assertEqual(set(re.findall(r"(?m)^(\w+)(?:\{[^}]*\})? \S+$", text)), set(names))
        self.assertEqual(get("/")[0], 404)
        agent.popen.send_signal(signal.SIGTERM)
        self.assertEqual(agent.wait(10), 0)
        self.assertRaises(urllib.error.URLError, get, "/healthz")

    def test_policy_is_in_force_before_it_is_ready(self):
        for name, text in (("policy.yaml", POLICY), ("broken.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: Not_A_Name}}")):
            with open(self.path("cluster", name), "w", encoding="utf-8") as stream:
                stream.write(text)
        said = [json.loads(line) for line in self.start().output().splitlines()]
        what = [line["msg"] for line in said]
        self.assertLess(what.index("policy in force"), what.index("agent ready"))
        problem = said[what.index("cluster source problem")]
        self.assertEqual((problem["level"], "broken.yaml" in problem["where"]), ("warning", True))
        self.assertTrue(self.status()["ready"])
        self.assertEqual(len(self.status()["problems"]), 1)

    def assert_no_policy_known(self, agent, problem):
        self.assertEqual(get("/readyz"), (503, "no policy has been read yet\n"))
        self.assertEqual(get("/healthz"), (200, "ok\n"))
        self.assertRegex(get("/metrics")[1], r"(?m)^vsocket_policy_known 0$")
        self.assertRegex(get("/metrics")[1], r"(?m)^vsocket_source_problems 1$")
        status = self.status()
        self.assertFalse(status.get("ready", False))
        self.assertIn(problem, " ".join(status["problems"]) if isinstance(status["problems"][0], str) else json.dumps(status["problems"]))
        said = [json.loads(line) for line in agent.output().splitlines()]
        line = next(line for line in said if line["msg"] == "no policy known")
        self.assertEqual(line["level"], "error")
        self.assertIn("nothing is accelerated", line["what"])

    def test_without_a_directory_it_waits_closed_for_one(self):
        os.rmdir(self.path("cluster"))
        agent = self.start()
        self.assert_no_policy_known(agent, self.path("cluster"))
        os.mkdir(self.path("cluster"))
        wait_until(lambda: get("/readyz")[0] == 200, "the directory to be read")
        self.assertTrue(self.status()["ready"])
        self.assertRegex(get("/metrics")[1], r"(?m)^vsocket_policy_known 1$")
        self.assertRegex(get("/metrics")[1], r"(?m)^vsocket_source_problems 0$")
        self.assertNotIn("problems", {key: value for key, value in self.status().items() if value})

    def test_a_file_that_is_no_yaml_keeps_it_closed_until_it_is_repaired(self):
        with open(self.path("cluster", "policy.yaml"), "w", encoding="utf-8") as stream:
            stream.write(POLICY + "}")
        agent = self.start()
        self.assert_no_policy_known(agent, "policy.yaml:5")
        with open(self.path("cluster", "policy.yaml"), "w", encoding="utf-8") as stream:
            stream.write(POLICY)
        wait_until(lambda: get("/readyz")[0] == 200, "the file to be read")

    def test_a_directory_that_vanishes_is_named_and_changes_nothing(self):
        with open(self.path("cluster", "policy.yaml"), "w", encoding="utf-8") as stream:
            stream.write(POLICY)
        self.start()
        revision = self.status()["revision"]
        os.rename(self.path("cluster"), self.path("away"))
        wait_until(lambda: self.status().get("problems"), "the problem to be told")
        self.assertIn("the last state stays in force", json.dumps(self.status()["problems"]))
        self.assertEqual(get("/readyz")[0], 200)
        self.assertTrue(self.status()["ready"])
        os.rename(self.path("away"), self.path("cluster"))
        wait_until(lambda: not self.status().get("problems"), "the directory to be read again")
        self.assertGreaterEqual(self.status()["revision"], revision)

    def test_what_the_compiler_finds_unclear_is_in_the_status_and_the_log(self):
        with open(self.path("cluster", "pod.yaml"), "w", encoding="utf-8") as stream:
            stream.write(TWO_PORTS_OF_ONE_NAME)
        agent = self.start()
        self.assertIn("several of its ports have one name (http)", json.dumps(self.status()["problems"]))
        self.assertIn("Pod default/unclear", json.dumps(self.status()["problems"]))
        self.assertIn("several of its ports have one name (http)", agent.output())
        self.assertRegex(get("/metrics")[1], r"(?m)^vsocket_source_problems 1$")
        with open(self.path("cluster", "pod.yaml"), "w", encoding="utf-8") as stream:
            stream.write(TWO_PORTS_OF_ONE_NAME.replace("name: http, containerPort: 8081", "name: other, containerPort: 8081"))
        wait_until(lambda: not self.status().get("problems"), "the pod to be clear")

    def test_no_listener_when_none_is_wanted(self):
        self.start(http_listen="")
        self.assertTrue(self.status()["ready"])
        self.assertRaises(urllib.error.URLError, get, "/healthz")


if __name__ == "__main__":
    if len(sys.argv) < 2 or not os.access(os.path.join(sys.argv[1], "vsocket-agent"), os.X_OK):
        sys.exit(__doc__)
    enter()
    BIN = os.path.abspath(sys.argv.pop(1))
    unittest.main()
