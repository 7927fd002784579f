"""Runs one module of Python's regression tests; appends a line of JSON for each test as it ends, so that a crash shows where it was.

usage: python_runner.py MODULE RESULT-FILE [PATTERN]: without the tests in whose name the regular expression is found
"""

import faulthandler
import json
import re
import sys
import threading
import unittest

from test import support

SLOW_SECONDS = 900


class Recorder(unittest.TextTestResult):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.stream_of_results = open(sys.argv[2], "a", encoding="utf-8")
        self.outcome = None

    def startTest(self, test):
        self.outcome = "pass"
        super().startTest(test)

    def stopTest(self, test):
        self.stream_of_results.write(json.dumps([test.id(), self.outcome]) + "\n")
        self.stream_of_results.flush()
        super().stopTest(test)

    def addError(self, test, err):
        self.outcome = "fail"
        if not isinstance(test, unittest.TestCase):  # a class or module that could not be set up
            self.stream_of_results.write(json.dumps([str(test), "fail"]) + "\n")
        super().addError(test, err)

    def addFailure(self, test, err):
        self.outcome = "fail"
        super().addFailure(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.outcome = "fail"
        super().addSubTest(test, subtest, err)

    def addSkip(self, test, reason):
        self.outcome = "skip"
        super().addSkip(test, reason)


def without(suite, pattern):
    """The tests of `suite` in whose name `pattern` is not found."""
    kept = unittest.TestSuite()
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            kept.addTest(without(test, pattern))
        elif not pattern.search(test.id()):
            kept.addTest(test)
    return kept


def main():
    faulthandler.dump_traceback_later(SLOW_SECONDS, exit=True)
    # No Internet, no sound, no gigabytes: what `python -m test` leaves out by itself.
    support.use_resources = ["cpu", "subprocess", "walltime"]
    if sys.argv[1] == "test.test_socketserver":
        support.use_resources.append("network")  # the loopback interface is all it asks for
    support.verbose = 1
    # AF_VSOCK is not confined to a network namespace: its tests meet whatever else runs on the machine.
    left_out = "|".join(["VSOCK", *filter(None, sys.argv[3:])])
    suite = without(unittest.defaultTestLoader.loadTestsFromName(sys.argv[1]), re.compile(left_out))
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Recorder)
    runner.run(suite)
    # exit() would wait for threads that failed tests left behind; it still runs what libraries registered.
    sys.stdout.flush()
    threading._shutdown = lambda: None


if __name__ == "__main__":
    main()
