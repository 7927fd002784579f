#!/usr/bin/env python3
"""Measures vsocket against the kernel's TCP on the same path. bench/README.md says how; ./dev bench runs it."""

import argparse
import json
import os
import statistics
import sys

from idle import measure_idle
from lab import Failure, Lab, settle
from rows import BUSY, PEERS, PLAIN
from sockmap import Sockmap


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="names of rows, or the beginning of some; none: all but --peers")
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--out", default="build/bench")
    parser.add_argument("--peers", action="store_true", help="also against a UNIX socket and a BPF sockmap redirect")
    parser.add_argument("--repeat", type=int, default=5, help="pairs of runs a row (default 5)")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long one run lasts, about (default 1.5)")
    parser.add_argument("--idle", type=int, default=1000, help="idle accelerated connections of the last row (default 1000)")
    parser.add_argument("--quick", action="store_true", help="three short runs: to try the bench, not to quote it")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    options = parser.parse_args()
    if options.quick:
        options.repeat, options.seconds = 3, 0.5
    return options


def measure(lab, row, repeat):
    """`repeat` pairs, one side after the other, so that what changes on the machine meets both."""
    lab.compete(row.compete)
    pairs = []
    for _ in range(repeat):
        pair = {}
        for side in (row.against, row.side):
            pair[side] = row.measure(lab, side)
            settle()
        pairs.append(pair)
    lab.compete(False)
    theirs = [pair[row.against] for pair in pairs]
    ours = [pair[row.side] for pair in pairs]
    ratios = [row.ratio(mine.value, other.value) for mine, other in zip(ours, theirs)]
    result = {
        "row": row.name,
        "what": row.title,
        "unit": row.unit,
        "against": row.against,
        "other": [sample.value for sample in theirs],
        "vsocket": [sample.value for sample in ours],
        "other_p99": [sample.p99 for sample in theirs],
        "vsocket_p99": [sample.p99 for sample in ours],
        "agent_share": max(sample.agent_share for sample in ours),
        "ratio": row.ratio(statistics.median(sample.value for sample in ours), statistics.median(sample.value for sample in theirs)),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "target": row.target,
        "accelerated": all(sample.upgraded > 0 for sample in ours),
    }
    result["reached"] = result["ratio"] >= row.target and (result["accelerated"] or not row.must_upgrade)
    result["note"] = "" if result["accelerated"] or not row.must_upgrade else "NOT ACCELERATED"
    if row.compete and ours[0].p99 is not None and theirs[0].p99 is not None:
        mine, other = (statistics.median(sample.p99 for sample in samples) for samples in (ours, theirs))
        if mine > other:
            result["reached"] = False
            result["note"] += " p99 worse"
    return result


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def table_line(result):
    if "ratio" not in result:
        return f"| {result['what']} | | {result['figure']} | | {result['wanted']} | {'yes' if result['reached'] else 'NO'} |"
    cells = []
    for key in ("other", "vsocket"):
        cell = f"{number(statistics.median(result[key]))} {result['unit']}"
        p99 = [value for value in result[f"{key}_p99"] if value is not None]
        if p99:
            cell += f" (p99 {number(statistics.median(p99))})"
        cells.append(cell)
    ratio = f"**{result['ratio']:.2f}x** ({result['ratio_min']:.2f} .. {result['ratio_max']:.2f})"
    reached = "yes" if result["reached"] else "NO"
    if result["note"]:
        reached += f": {result['note'].strip()}"
    against = "" if result["against"] == "tcp" else f" [{result['against']}]"
    return f"| {result['what']} | {cells[0]}{against} | {cells[1]} | {ratio} | {result['target']:g}x | {reached} |"


HEAD = ["| what | kernel TCP | vsocket | better by (min .. max of pairs) | wanted | reached |", "| --- | --- | --- | --- | --- | --- |"]


def chosen_rows(options):
    rows = PLAIN + BUSY + (PEERS if options.peers else [])
    if not options.rows:
        return rows, True
    wanted = [row for row in PLAIN + BUSY + PEERS if any(row.name.startswith(name) for name in options.rows)]
    idle = any("idle".startswith(name) for name in options.rows)
    if not wanted and not idle:
        raise Failure(f"no row is named {' or '.join(options.rows)}; --list names them")
    return wanted, idle


def main():
    options = parse()
    if options.list:
        for row in PLAIN + BUSY + PEERS:
            print(f"{row.name:20} {row.title}")
        print(f"{'idle':20} idle accelerated connections")
        return 0
    results, failed = [], False
    try:
        rows, idle = chosen_rows(options)
        os.makedirs(options.out, exist_ok=True)
        print("\n".join(HEAD), flush=True)
        with Lab(options.build, options.seconds) as lab, Sockmap(lab, any(row.against == "sockmap" for row in rows)):
            for row in rows:
                try:
                    results.append(measure(lab, row, options.repeat))
                    print(table_line(results[-1]), flush=True)
                except Failure as failure:
                    failed = True
                    lab.compete(False)
                    print(f"| {row.title} | | | | | FAILED: {str(failure)[:300]} |", flush=True)
            if idle:
                results.append(measure_idle(lab, options.idle))
                print(table_line(results[-1]), flush=True)
    except Failure as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    with open(os.path.join(options.out, "bench.json"), "w", encoding="utf-8") as stream:
        json.dump(results, stream, indent=1)
    with open(os.path.join(options.out, "bench.md"), "w", encoding="utf-8") as stream:
        stream.write("\n".join(HEAD + [table_line(result) for result in results]) + "\n")
    missed = [result["row"] for result in results if not result["reached"]]
    print(f"\n{len(results) - len(missed)} of {len(results)} rows reached" + (f"; not reached: {', '.join(missed)}" if missed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
