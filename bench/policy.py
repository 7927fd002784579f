#!/usr/bin/env python3
"""What policies cost the agent, by the number of pods: ./dev bench policy runs it. A process a row, so that memory is the row's own."""

import argparse
import json
import os
import subprocess
import sys

ROWS = [
    ("1,000 pods, 1,000 policies", ["--pods", "1000"]),
    ("10,000 pods, 1,000 policies", ["--pods", "10000"]),
    ("100,000 pods, 1,000 policies", ["--pods", "100000"]),
    ("10,000 pods, every policy lets everybody in", ["--pods", "10000", "--wide"]),
]
CHANGES = {"relabel": "a label", "move": "an address", "add": "a pod more", "remove": "a pod less", "policy": "a policy"}
COMPILE_MS, COMPILE_MIB, CHANGE_MS = 1000, 200, 10  # what is wanted of 10,000 pods and 1,000 policies


def run(program, flags):
    return json.loads(subprocess.run([program, *flags], capture_output=True, text=True, check=True).stdout)


def table(results):
    changes = " | ".join(f"{title}: median / worst ms" for title in CHANGES.values())
    lines = [
        f"| | compile, ms | resident, MiB (snapshot alone) | identities | a verdict, us | {changes} |",
        "| --- |" + " ---: |" * (4 + len(CHANGES)),
    ]
    for title, result in results:
        cells = [f"{result['compile_ms']:.0f}", f"{result['resident_mib']:.0f} ({result['state_mib']:.0f})", str(result["identities"]),
                 f"{result['verdict_us']:.1f}"]
        cells += [f"{result[change]['median_ms']:.2f} / {result[change]['worst_ms']:.1f}" for change in CHANGES]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--out", default="build/bench")
    options = parser.parse_args()
    program = os.path.join(options.build, "bin", "policy_bench")
    results = [(title, run(program, flags)) for title, flags in ROWS]
    rules = run(program, ["--rules", "10000"])
    text = table(results) + (
        f"\n\nOne policy of 10,000 rules, half of them overlapping CIDRs: compiled in {rules['compile_ms']:.0f} ms,"
        f" a verdict {rules['verdict_us']:.1f} us, a pod's new label in force in {rules['relabel_ms']:.2f} ms.\n"
    )
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "policy.md"), "w", encoding="utf-8") as stream:
        stream.write(text)
    with open(os.path.join(options.out, "policy.json"), "w", encoding="utf-8") as stream:
        json.dump({"rows": dict(results), "rules": rules}, stream, indent=1)
    print(text)
    wanted = results[1][1]
    reached = {
        f"compiled in {COMPILE_MS} ms": wanted["compile_ms"] < COMPILE_MS,
        f"within {COMPILE_MIB} MiB": wanted["resident_mib"] < COMPILE_MIB,
        f"a pod's change in force in {CHANGE_MS} ms": all(wanted[name]["median_ms"] < CHANGE_MS for name in CHANGES if name != "policy"),
    }
    for what, is_so in reached.items():
        print(f"10,000 pods and 1,000 policies, {what}: {'reached' if is_so else 'NOT reached'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
