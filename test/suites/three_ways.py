#!/usr/bin/env python3
"""Runs an existing test suite three ways and requires equal results, test by test:

  bare         without vsocket
  off          with the shim, upgrades switched off (VSOCKET_UPGRADE=off)
  first-byte   with the shim, every connection upgraded at its first byte (VSOCKET_UPGRADE_AFTER=0)

The third must show, by the shims' own counters, that connections and bytes really ran on rings. A unit with a failed test runs once more;
a test counts as failed when it failed both times. Tests that fail bare twice are listed and not compared. Needs root.
"""

import argparse
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from memcached_suite import MemcachedSuite  # noqa: E402
from network_suites import IperfSuite, NginxSuite, SockperfSuite  # noqa: E402
from pods import Node  # noqa: E402
from procs import Failure, read_stats  # noqa: E402
from python_suite import PythonSuite  # noqa: E402
from redis_suite import RedisSuite  # noqa: E402
from suite import FAIL, PASS, SKIP, Context  # noqa: E402

SUITES = {suite.name: suite for suite in (RedisSuite, MemcachedSuite, PythonSuite, IperfSuite, SockperfSuite, NginxSuite)}
WAYS = {"bare": False, "off": {"VSOCKET_UPGRADE": "off"}, "first-byte": {"VSOCKET_UPGRADE_AFTER": "0"}}


def run_way(suite, context, units):
    """{(unit, test): outcome} and the tests that passed only at the second try."""
    results, unsteady = {}, []
    suite.begin(context)
    try:
        for unit in units:
            started = time.monotonic()
            outcome = suite.run_unit(context, unit)
            first_failures = [test for test, what in outcome.items() if what == FAIL]
            if first_failures:
                context.second = True
                again = suite.run_unit(context, unit)
                context.second = False
                unsteady += [(unit, test) for test in first_failures if again.get(test, FAIL) != FAIL]
                # Failed means failed twice; a test that the second run did not reach failed.
                outcome = {test: what if what != FAIL else again.get(test, FAIL) for test, what in {**again, **outcome}.items()}
            results.update({(unit, test): what for test, what in outcome.items()})
            bad = sum(what == FAIL for what in outcome.values())
            print(f"  {unit}: {len(outcome)} results, {bad} failed ({time.monotonic() - started:.1f} s)", flush=True)
    finally:
        suite.end(context)
    return results, unsteady


def differences(bare, other):
    """[(unit, test, bare outcome, other outcome)] where a test that does not fail bare ended otherwise."""
    found = []
    for key in sorted(set(bare) | set(other)):
        expected, got = bare.get(key, "absent"), other.get(key, "absent")
        if expected != FAIL and expected != got:
            # A test that bare never reached because an earlier one failed is no difference.
            if expected == "absent" and got in (PASS, SKIP) and any(what == FAIL for (unit, _), what in bare.items() if unit == key[0]):
                continue
            found.append((*key, expected, got))
    return found


def counters_problem(way, stats, must_accelerate):
    """What the shims' counters of this way say that must not be; None when all is well."""
    if way == "off" and stats["upgraded"]:
        return f"{stats['upgraded']} connections were accelerated with VSOCKET_UPGRADE=off"
    if way != "bare" and not stats["processes"]:
        return "no process wrote VSOCKET_STATS: the shim was not loaded"
    if way == "first-byte" and must_accelerate and (not stats["upgraded"] or not stats["ring_tx"] + stats["ring_rx"]):
        return f"nothing was accelerated: {stats['connections']} connections, reasons {stats['reasons']}"
    return None


def run_suite(node, suite, short, out, sources, ways):
    pod, peer = node.add_pod("server"), node.add_pod("client")
    problems, all_results, summary = [], {}, {}
    for way in ways:
        work = os.path.join(out, way)
        os.makedirs(work, exist_ok=True)
        stats_file = os.path.join(work, "stats.json")
        if os.path.exists(stats_file):
            os.unlink(stats_file)
        shim = WAYS[way] if WAYS[way] is False else {**WAYS[way], "VSOCKET_STATS": stats_file}
        context = Context(node, pod, peer, shim, work, sources)
        if not all_results:
            suite.prepare(context)
        elif suite.name == "nginx":
            suite.prepare(context)
        print(f"{suite.name}, {way}:", flush=True)
        started = time.monotonic()
        results, unsteady = run_way(suite, context, suite.units(short))
        stats = read_stats(stats_file)
        all_results[way] = results
        for unit, test in unsteady:
            print(f"  unsteady (passed at the second try): {unit}: {test}")
        counts = {what: sum(one == what for one in results.values()) for what in (PASS, FAIL, SKIP)}
        summary[way] = {**counts, "seconds": round(time.monotonic() - started, 1), "unsteady": len(unsteady), "stats": stats}
        if not counts[PASS]:
            problems.append(f"{way}: nothing passed")
        problem = counters_problem(way, stats, suite.must_accelerate)
        if problem:
            problems.append(f"{way}: {problem}")
        if way == "bare":
            for (unit, test), what in sorted(results.items()):
                if what == FAIL:
                    print(f"  fails bare, not compared: {unit}: {test}")
        elif "bare" in all_results:
            for unit, test, expected, got in differences(all_results["bare"], results):
                problems.append(f"{way}: {unit}: {test}: {expected} bare, {got} here")
    return problems, summary


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True, choices=[*SUITES, "all"])
    parser.add_argument("--short", action="store_true", help="a few minutes at most instead of the whole suite")
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--out", default="build/three-ways", help="logs, statistics and results")
    parser.add_argument("--sources", default="build/sources", help="where fetched source packages are kept")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="only this way (may be repeated); for looking into a difference")
    options = parser.parse_args()
    ways = options.way or list(WAYS)
    failed = False
    for name in SUITES if options.suite == "all" else [options.suite]:
        out = os.path.abspath(os.path.join(options.out, name))
        os.makedirs(out, exist_ok=True)
        try:
            accelerated = any(way != "bare" for way in ways)
            with Node(options.build, agent=accelerated) as node:
                if accelerated:
                    node.start_agent()
                problems, summary = run_suite(node, SUITES[name](), options.short, out, os.path.abspath(options.sources), ways)
        except Failure as failure:
            problems, summary = [str(failure)], {}
        with open(os.path.join(out, "summary.json"), "w", encoding="utf-8") as stream:
            json.dump({"problems": problems, "ways": summary}, stream, indent=1)
        for way, counts in summary.items():
            stats = counts["stats"]
            rings = f"{stats['upgraded']} of {stats['connections']} connections and {stats['ring_tx'] + stats['ring_rx']} bytes on rings"
            tests = f"{counts[PASS]:5} passed {counts[FAIL]:3} failed {counts[SKIP]:3} skipped {counts['seconds']:7.1f} s"
            print(f"{name:9} {way:10} {tests}  {rings}")
        for problem in problems[:60]:
            print(f"{name}: DIFFERENT: {problem}")
        print(f"{name}: {'FAIL, ' + str(len(problems)) + ' differences' if problems else 'PASS, equal three ways'}", flush=True)
        failed |= bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
