"""What the drivers of torture, death and the hostile peer share: options, the agent's faults, the verdict."""

import argparse
import shlex
import sys
import time

from events import Deadline
from procs import Failure, all_ended


def option_parser(description):
    """With what each driver takes; the seed is chosen when none is given."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build folder with bin/ and lib/")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1000000007)
    return parser


def add_fault_options(parser):
    parser.add_argument("--flap-ms", type=int, default=0, help="leave the rings about every so many milliseconds")
    parser.add_argument("--kill-agent-ms", type=int, default=0, help="SIGKILL the agent about every so many milliseconds")
    parser.add_argument("--hold", type=int, default=0, help="on failure keep the processes so many seconds for a debugger")


def disturb(agent, processes, choices, kill_ms, limit, absences=()):
    """Kills and restarts the agent at random moments, about every `kill_ms` milliseconds (0: never), until the processes have ended.

    `absences` are the seconds, one of them chosen each time, for which it stays away. Returns how often it was killed. Raises Failure
    when the processes have not ended after `limit` seconds.
    """
    kills = 0
    deadline = Deadline(limit)
    while True:
        # The pause is the fault's timing and random on purpose; the end of the processes cuts it short.
        pause = choices.uniform(0.3, 1.7) * kill_ms / 1000 if kill_ms else limit
        if all_ended(processes, min(pause, deadline.left())):
            return kills
        if deadline.left() == 0:
            raise Failure(f"it does not end: {' '.join(processes[0].argv)}")
        agent.kill()
        kills += 1
        if absences:
            time.sleep(choices.choice(absences))  # also the fault's timing: how long there is no agent
        agent.start()


def main(name, options, run_once):
    """Prints the command line that repeats the run, runs `run_once`, which returns problems, and prints PASS or FAIL. The exit status."""
    words = " ".join(shlex.quote(word) for word in sys.argv)
    print("repeat:", words, "" if "--seed" in sys.argv else f"--seed {options.seed}")
    sys.stdout.flush()
    try:
        problems = run_once(options)
    except Failure as failure:
        problems = [str(failure)]
    print(f"PASS {name}" if not problems else f"FAIL {name}: {'; '.join(problems)}")
    return 1 if problems else 0
