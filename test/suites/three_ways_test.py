#!/usr/bin/env python3
"""What three_ways.py takes for a difference, and which counters it does not believe. Needs neither root nor programs."""

import unittest

from three_ways import FAIL, PASS, SKIP, counters_problem, differences

ON_RINGS = {"processes": 2, "connections": 5, "upgraded": 4, "ring_tx": 100, "ring_rx": 100, "reasons": {}}


class CountersTest(unittest.TestCase):
    def test_rings_are_believed_only_with_connections_and_bytes_on_them(self):
        self.assertIsNone(counters_problem("first-byte", ON_RINGS, True))
        self.assertIn("nothing was accelerated", counters_problem("first-byte", {**ON_RINGS, "upgraded": 0}, True))
        self.assertIn("nothing was accelerated", counters_problem("first-byte", {**ON_RINGS, "ring_tx": 0, "ring_rx": 0}, True))

    def test_a_shim_that_was_not_loaded_is_noticed(self):
        for way in ("off", "first-byte"):
            self.assertIn("not loaded", counters_problem(way, {**ON_RINGS, "processes": 0, "upgraded": 0}, True))

    def test_nothing_may_be_on_rings_when_switched_off(self):
        self.assertIn("were accelerated", counters_problem("off", ON_RINGS, True))
        self.assertIsNone(counters_problem("off", {**ON_RINGS, "upgraded": 0}, True))


class DifferencesTest(unittest.TestCase):
    def test_equal_results_are_no_difference(self):
        self.assertEqual(differences({("u", "a"): PASS, ("u", "b"): SKIP}, {("u", "a"): PASS, ("u", "b"): SKIP}), [])

    def test_what_fails_is_skipped_or_is_missing_only_here_is_one(self):
        for got in (FAIL, SKIP):
            self.assertEqual(differences({("u", "a"): PASS}, {("u", "a"): got}), [("u", "a", PASS, got)])
        self.assertEqual(differences({("u", "a"): PASS}, {}), [("u", "a", PASS, "absent")])
        self.assertEqual(differences({}, {("u", "a"): PASS}), [("u", "a", "absent", PASS)])

    def test_what_fails_bare_is_not_compared(self):
        self.assertEqual(differences({("u", "a"): FAIL}, {("u", "a"): PASS, ("u", "after it"): PASS}), [])
        self.assertEqual(differences({("u", "a"): FAIL}, {("other", "b"): PASS}), [("other", "b", "absent", PASS)])


if __name__ == "__main__":
    unittest.main()
