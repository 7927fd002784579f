"""Python's own tests of sockets and what stands on them (libpython3.11-testsuite), with Debian's /usr/bin/python3.11."""

import json
import os

from suite import FAIL, Suite

PYTHON = "/usr/bin/python3.11"
RUNNER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "python_runner.py")
SHORT = [
    "test.test_socket", "test.test_selectors", "test.test_asyncio.test_streams", "test.test_asyncio.test_server",
    "test.test_asyncio.test_sock_lowlevel", "test.test_asyncio.test_events.EPollEventLoopTests",
    "test.test_subprocess.POSIXProcessTestCase",
]
# Of the short units: tests that sleep for a second and more, where the same is seen for another class or call.
LEFT_OUT_OF_SHORT = (
    "NetworkConnectionBehaviourTest UDPLITE (?<!\\.FileObjectClassTestCase)\\.testReadAfterTimeout test_sendall_interrupted$ "
    "SendfileUsingSendTest testInterruptedTimeout PollSelectorTestCase DefaultSelectorTestCase test_select_interrupt_noraise "
    "SelectSelectorTestCase.test_timeout _dead$ test_communicate_repeated_call"
).split()
LONG = [
    "test.test_socket", "test.test_selectors", "test.test_asyncio", "test.test_subprocess", "test.test_socketserver", "test.test_epoll",
    "test.test_select", "test.test_poll", "test.test_httplib", "test.test_ftplib", "test.test_ssl",
]


class PythonSuite(Suite):
    name = "python"

    def units(self, short):
        self.left_out = "|".join(LEFT_OUT_OF_SHORT) if short else ""
        return SHORT if short else LONG

    def run_unit(self, context, unit):
        result_file = os.path.join(context.work, "result.json")
        if os.path.exists(result_file):
            os.unlink(result_file)
        status, output = context.run([PYTHON, RUNNER, unit, result_file, self.left_out], cwd=context.work, timeout=1200)
        context.keep(unit, output)
        results = {}
        if os.path.exists(result_file):
            with open(result_file, encoding="utf-8") as stream:
                results = {name: outcome for name, outcome in (json.loads(line) for line in stream)}
        if status != 0:
            # Killed, crashed or hung: what had not been reported by then is missing, and counts as failed.
            results["(runner)"] = FAIL
        return results
