#!/usr/bin/env python3
"""Searches the Promela models exhaustively with spin: the right ones must be free of errors, each deliberately broken one must fail.

usage: check.py [--build-dir DIR] [--jobs N] [--only TEXT]
Prints a line a search and ends with PASS or FAIL; exit status 0 or 1. Needs spin and a C compiler.
"""
import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
MAX_DEPTH = 1_000_000
MEMORY_MB = 1900  # per search; two run at once
TIME_LIMIT_S = 300


@dataclasses.dataclass(frozen=True)
class Search:
    model: str
    defines: str  # words for the preprocessor, without -D
    broken: bool = False
    liveness: bool = False  # no non-progress cycle, under weak fairness

    @property
    def title(self) -> str:
        return f"{self.model} {self.defines or '-'}" + (" [liveness]" if self.liveness else "")


def right(model: str, *variants: str) -> list[Search]:
    return [Search(model, v) for v in variants]


def broken(model: str, *variants: str) -> list[Search]:
    return [Search(model, v, broken=True) for v in variants]


# The longest first, so that two jobs end together.
SEARCHES = [
    *right("wake", "N=3", "N=6 WAITERS=1 SHRINKS", "N=4 WAITERS=1 CAP=1 CAP2=1", "N=5 WAITERS=1 CAP=2 CAP2=2 QUARTER=2"),
    Search("wake", "N=3 WAITERS=1", liveness=True),
    *right("switch_pair", "N0=2 N1=1 HANDOVER VICTIM=1", "N0=2 N1=1 HANDOVER NOKILL", "N0=2 N1=1 HANDOVER NOKILL PATIENT",
           "N0=1 N1=2 VICTIM=0", "N0=2 N1=1 VICTIM=1", "N0=3 N1=1 NOKILL PATIENT", "N0=2 N1=1 NOKILL PATIENT AGENT_DIES",
           "N0=2 N1=1 VICTIM=0 AGENT_DIES", "N0=4 N1=1 CAP=2 NOKILL PATIENT"),
    *right("switch_nodes", "N=2", "N=2 KILL_B NOKILL", "N=2 KILL_A NOKILL", "N=2 NOKILL RELINK"),
    *right("rung", "N=3", "CONNECTIONS=3 N=1"),
    *right("grant", "N=4"),
    *right("switch", "N=3", "LOCAL N=5 G=3", "LOCAL N=4 CAP=3 SOCKBUF=2", "LOCAL N=4 CAP=1"),
    *right("reset", "N=3", "N=5 FRAMES=5", "N=3 BELLS"),
    *broken("reset", "N=3 BAD_NO_FENCE_VICTIM", "N=3 BAD_NO_LOOK", "N=3 BAD_LOOK_FIRST", "N=3 BELLS BAD_NO_LOOK",
            "N=3 BELLS BAD_BELL_REGARDLESS"),
    *broken("switch", "N=3 BAD_MARKER", "N=3 BAD_SWITCH_BYTE", "N=3 BAD_RESUME_TOO_FAR", "N=3 BAD_FIN_IN_REMOTE_RING",
            "N=3 BAD_EARLY_PROPOSAL", "N=3 BAD_PROPOSE_BEFORE_FINISHED", "N=3 BAD_NO_ROOM_CHECK", "LOCAL BAD_EARLY_PROPOSAL",
            "LOCAL BAD_PROPOSE_BEFORE_FINISHED", "LOCAL BAD_FINISHED_BEFORE_DRAINED", "LOCAL BAD_NO_ROOM_CHECK", "LOCAL BAD_RESUME_TOO_FAR",
            "LOCAL BAD_TAIL_AFTER_GENERATION", "LOCAL BAD_EOF_STALE_TAIL", "LOCAL BAD_CLOSE_RING_AT_SWITCH"),
    *broken("switch_nodes", "N=2 BAD_MARKER", "N=2 BAD_RESUME_TOO_FAR", "N=2 BAD_IDLE_BEFORE_REPLAY", "N=2 BAD_ABORT_BLINDLY",
            "N=2 BAD_COMMIT_BLINDLY", "N=2 BAD_FIN_IN_RING", "N=2 CAP=1 BAD_PROPOSE_UNSETTLED", "N=2 BAD_PROPOSE_BEFORE_FINISHED",
            "N=2 BAD_ANSWER_BEFORE_DONE", "N=2 BAD_POSITION_FIRST", "N=2 BAD_END_UNASKED", "N=3 CAP=1 BAD_NO_ROOM_CHECK"),
    *broken("switch_pair", "NOKILL BAD_EARLY_PROPOSAL", "NOKILL BAD_PROPOSE_BEFORE_FINISHED", "NOKILL PATIENT BAD_UNARMED_BY_TCP",
            "N0=3 NOKILL BAD_FRAMED_AFTER_FIN", "N0=3 NOKILL PATIENT BAD_NO_PASSING_ON", "N0=3 NOKILL PATIENT BAD_SLEEP_UNFRAMED",
            "N0=1 N1=2 VICTIM=0 BAD_END_BEFORE_PROPOSAL", "NOKILL HANDOVER BAD_ABANDON_BEFORE_REPLAY",
            "NOKILL HANDOVER PATIENT BAD_READER_IGNORES_GATE", "NOKILL HANDOVER PATIENT BAD_HANDOVER_RINGS_NOBODY",
            "NOKILL HANDOVER PATIENT BAD_REPLAY_LEFT_BEHIND"),
    *broken("rung", "BAD_CLEAR_AFTER_ARM", "BAD_SET_AFTER_RING"),
    *broken("grant", "BAD_NO_FENCE_SENDER", "BAD_NO_FENCE_AGENT", "BAD_NO_RECHECK"),
    *broken("wake", "N=2 BAD_NO_FENCE_PRODUCER", "N=2 BAD_NO_FENCE_WAITER", "WAITERS=1 CAP2=2 BAD_NO_FENCE_PRODUCER",
            "WAITERS=1 CAP2=2 BAD_NO_FENCE_WAITER", "N=2 BAD_NO_DATA_RECHECK", "WAITERS=1 CAP2=2 BAD_NO_SPACE_RECHECK",
            "N=2 BAD_TAIL_BEFORE_BYTES", "N=3 BAD_NO_PASSING_ON", "N=3 BAD_DISARM_UNLOCKED", "N=3 BAD_DISARM_BY_ANY",
            "N=5 WAITERS=1 BAD_GROW_NOT_EMPTY", "N=5 WAITERS=1 BAD_CAPACITY_BEFORE_TAIL",
            "N=5 WAITERS=1 CAP=2 CAP2=2 QUARTER=2 BAD_THRESHOLDS"),
]


@dataclasses.dataclass
class Outcome:
    verdict: str = "?"  # ok, or what is wrong
    detail: str = ""
    states: int = 0
    depth: int = 0
    seconds: float = 0.0


def number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else None


def judge(search: Search, output: str, outcome: Outcome) -> None:
    """Reads pan's report. A right model must be searched to the end; a broken one needs only its counterexample."""
    errors = number(r"errors: (\d+)", output)
    outcome.states = number(r"(\d+) states, stored", output) or 0
    outcome.depth = number(r"depth reached (\d+)", output) or 0
    first = re.search(r"^pan:\d+: (.+)$", output, re.MULTILINE)
    outcome.detail = first.group(1) if first else ""
    cut = [sign for sign in ("max search depth too small", "out of memory", "Search not completed", "reached -DMEMLIM")
           if sign.lower() in output.lower()]
    if errors is None:
        outcome.verdict = "no report from pan"
        outcome.detail = output.strip()[-300:]
    elif search.broken:
        outcome.verdict = "ok" if errors > 0 else "NOT CAUGHT"
        # What would show only that the search was cut short proves nothing.
        if errors > 0 and not re.search(r"assertion violated|invalid end state|non-progress cycle", output):
            outcome.verdict = "FAILED OTHERWISE"
    elif errors > 0:
        outcome.verdict = "ERROR FOUND"
    elif cut:
        outcome.verdict = "NOT COMPLETE: " + ", ".join(cut)
    else:
        outcome.verdict = "ok"


def run(search: Search, build: pathlib.Path) -> Outcome:
    outcome = Outcome()
    folder = build / re.sub(r"[^A-Za-z0-9]+", "_", search.title).strip("_")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "model.pml").write_text((HERE / f"{search.model}.pml").read_text())
    compiler = os.environ.get("CC", "cc")
    mode = ["-DNP", "-DNFAIR=3"] if search.liveness else ["-DSAFETY"]
    steps = [
        ["spin", "-a", *(f"-D{word}" for word in search.defines.split()), "model.pml"],
        [compiler, "-O0" if search.broken else "-O2", "-w", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}", *mode, "-o", "pan", "pan.c"],
        ["./pan", f"-m{MAX_DEPTH}", "-w22", *(["-l", "-f"] if search.liveness else [])],
    ]
    begun = time.monotonic()
    output = ""
    for step in steps:
        try:
            done = subprocess.run(step, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            outcome.verdict = f"NOT COMPLETE: {step[0]} ran for {TIME_LIMIT_S} s"
            return outcome
        output = done.stdout
        if step is not steps[-1] and (done.returncode != 0 or re.search(r"\berror\b", output, re.IGNORECASE)):
            outcome.verdict = f"{step[0]} failed"
            outcome.detail = output.strip()[:300]
            return outcome
    outcome.seconds = time.monotonic() - begun
    (folder / "pan.out").write_text(output)
    judge(search, output, outcome)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", type=pathlib.Path, default=pathlib.Path("build/models"),
                        help="where the searches are made (build/models)")
    parser.add_argument("--jobs", type=int, default=2, help="searches at once (2)")
    parser.add_argument("--only", default="", help="only searches whose title contains this")
    options = parser.parse_args()
    searches = [s for s in SEARCHES if options.only in s.title]
    if not searches:
        print(f"check.py: nothing is called {options.only!r}", file=sys.stderr)
        return 1
    build = options.build_dir.resolve()
    begun = time.monotonic()
    print(f"{'search':<66} {'must':<6} {'verdict':<12} {'states':>11} {'depth':>6} {'s':>6}  first error")
    wrong = total = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=options.jobs) as pool:
        for search, outcome in zip(searches, pool.map(lambda s: run(s, build), searches)):
            ok = outcome.verdict == "ok"
            wrong += not ok
            total += outcome.states if ok and not search.broken else 0
            print(f"{search.title:<66} {'fail' if search.broken else 'hold':<6} {outcome.verdict:<12} {outcome.states:>11,} "
                  f"{outcome.depth:>6} {outcome.seconds:>6.1f}  {outcome.detail}", flush=True)
            if not ok:
                print(f"    see {build}: cd there into the search's folder; spin -t -p -g model.pml replays a trail", flush=True)
    verdict = "PASS" if wrong == 0 else "FAIL"
    print(f"{verdict}: {len(searches)} searches, {wrong} wrong, {total:,} states of right models, {time.monotonic() - begun:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
