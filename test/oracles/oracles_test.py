#!/usr/bin/env python3
"""Our verdicts against those of sigs.k8s.io/kube-network-policies and of cyclonus: over random clusters, the twenty cases by name, and the
conformance cases that cyclonus generates.

Where the others read the specification otherwise is written down (policy_oracles.cc, docs/networkpolicy.md), and every verdict must be
explained by exactly that: the slow evaluator, told to read it their way, must say what they say. A difference that is not written down
fails, and so does one that is written down and is not there.

VSOCKET_SEED repeats a run, VSOCKET_CLUSTERS makes it longer."""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from named_cases import CASES, MORE

HERE = os.path.dirname(os.path.abspath(__file__))
OTHERS = {"kube-network-policies": "kubenetworkpolicies", "cyclonus": "cyclonus"}

# Which points may make a difference. Each is shown by a named case.
POINTS = {
    "kube-network-policies": {"self is judged", "the own node is judged", "a name means all its numbers", "finished pods count"},
    "cyclonus": {
        "self is judged", "the own node is judged", "NotIn needs the label", "an empty label is none", "a name means all its numbers",
    },
}

# Of the named cases: all that differ, with the number of the flow.
NAMED = {
    "kube-network-policies": {
        ("15 the own node is let in, other nodes and the way out are not", 0): "the own node is judged",
        ("20 a pod and itself; families apart; no SCTP by chance", 3): "self is judged",
        ("a port name of two containers", 0): "a name means all its numbers",
        ("a port name of two containers", 1): "a name means all its numbers",
        ("the address of a finished pod", 0): "finished pods count",
    },
    "cyclonus": {
        ("15 the own node is let in, other nodes and the way out are not", 0): "the own node is judged",
        ("17 what has no labels matches NotIn", 0): "NotIn needs the label",
        ("17 what has no labels matches NotIn", 1): "NotIn needs the label",
        ("20 a pod and itself; families apart; no SCTP by chance", 3): "self is judged",
        ("a port name of two containers", 0): "a name means all its numbers",
        ("a port name of two containers", 1): "a name means all its numbers",
        ("a label without a value", 0): "an empty label is none",
    },
}


class Failure(Exception):
    pass


def run(command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def describe(one, index, answers):
    flow = one["flows"][index]
    says = ", ".join(f"{who}: {'allowed' if what[index] == '1' else 'denied'}" for who, what in answers.items())
    policies = "\n".join("  " + json.dumps(policy["spec"]) for policy in one["policies"] or [])
    return f"{one['name']}, {flow}: {says}\n{policies}"


class Comparison:
    """Of one group of cases, all judges' answers."""

    def __init__(self, title, cases, programs):
        self.title = title
        self.cases = cases
        text = "".join(json.dumps(one) + "\n" for one in cases)
        with ThreadPoolExecutor() as pool:
            answers = dict(zip(programs, pool.map(lambda command: lines(run(command, text)), programs.values())))
        for who, what in answers.items():
            if [answer["name"] for answer in what] != [one["name"] for one in cases]:
                raise Failure(f"{title}: {who} did not answer every case")
        self.ours = answers.pop("ours")
        self.others = answers

    def differences(self, who):
        """(case, flow, points that explain it), after a check that all of them are explained."""
        found = []
        for one, ours, theirs in zip(self.cases, self.ours, self.others[who]):
            read_their_way = ours["as"][who]
            for index in range(len(one["flows"] or [])):
                said = theirs["allowed"][index]
                if said != read_their_way[index]:
                    answers = {"ours": ours["allowed"], who: theirs["allowed"], f"expected of {who}": read_their_way}
                    raise Failure("not explained: " + describe(one, index, answers))
                if said != ours["allowed"][index]:
                    points = {point for point, answer in ours["points"].items() if answer[index] != ours["allowed"][index]} & POINTS[who]
                    found.append((one["name"], index, points))
        return found

    def flows(self):
        return sum(len(one["flows"] or []) for one in self.cases)

    def report(self, who):
        found = self.differences(who)
        counts = Counter(point for _, _, points in found for point in (points if len(points) == 1 else {"several points together"}))
        reasons = ", ".join(f"{count} because {point}" for point, count in sorted(counts.items())) or "none"
        agreed = self.flows() - len(found)
        print(f"{self.title}, {who}: {len(self.cases)} clusters, {self.flows()} verdicts, {agreed} agree; {len(found)} differ: {reasons}")
        return found


def check_random(programs, seed, clusters):
    print(f"VSOCKET_SEED={seed}")
    comparison = Comparison("random", lines(run([programs["ours"][0], "random", str(seed), str(clusters)])), programs)
    for who in OTHERS:
        comparison.report(who)
    denied = sum(answer["allowed"].count("0") for answer in comparison.ours)
    if not comparison.flows() / 10 < denied < comparison.flows() * 9 / 10:
        raise Failure(f"{denied} of {comparison.flows()} verdicts are denials: that shows little")


def check_named(programs):
    comparison = Comparison("named cases", CASES + MORE, programs)
    for one, ours in zip(comparison.cases, comparison.ours):
        if ours["allowed"] != one["expected"]:
            raise Failure(f"{one['name']}: ours {ours['allowed']}, expected {one['expected']}")
    for who in OTHERS:
        found = {(name, index): "".join(points) for name, index, points in comparison.report(who)}
        if found != NAMED[who]:
            raise Failure(f"named cases, {who}: {found}, written down: {NAMED[who]}")
        if set(found.values()) != POINTS[who]:
            raise Failure(f"{who}: no case shows {POINTS[who] - set(found.values())}")


def check_generated(programs, generator):
    comparison = Comparison("cyclonus' conformance cases", lines(run([generator])), programs)
    for one, theirs in zip(comparison.cases, comparison.others["cyclonus"]):
        if one.get("expected", "") != theirs["allowed"]:
            raise Failure(f"{one['name']}: cyclonus expects {one.get('expected')} and answers {theirs['allowed']}")
    for who in OTHERS:
        by_name = {one["name"]: one for one in comparison.cases}
        for name, index, points in comparison.report(who):
            flow = by_name[name]["flows"][index]
            if points != {"self is judged"} or flow["source"] != flow["destination"]:
                raise Failure(f"{who}: {name}, {flow} differs because {points}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, help="the build folder of CMake")
    arguments = parser.parse_args()
    folder = os.path.join(os.path.dirname(os.path.abspath(arguments.build)), "oracles")
    try:
        print(run([os.path.join(HERE, "build.sh"), folder]), end="")
        programs = {"ours": [os.path.join(arguments.build, "bin", "policy_oracles"), "judge"]}
        programs.update((who, [os.path.join(folder, program)]) for who, program in OTHERS.items())
        check_named(programs)
        check_generated(programs, os.path.join(folder, "cyclonuscases"))
        check_random(programs, int(os.environ.get("VSOCKET_SEED", int.from_bytes(os.urandom(4), "little"))),
                     int(os.environ.get("VSOCKET_CLUSTERS", "1000")))
    except Failure as failure:
        print(f"FAIL: {failure}")
        return 1
    print("PASS")
    return 0


if __name__ == "__main__":
    sys.exit(main())
