#!/usr/bin/env python3
"""Two virtual machines with software RDMA, for people: what ./dev vm calls.

  up                         start both (a: 10.77.0.1, b: 10.77.0.2); they stay up until `down`
  run a|b COMMAND...         run a command as root; its streams and exit status are this program's. One word is a line for bash
  status                     which run
  down                       end both; nothing is left

Faults, each until its opposite; without a|b for both machines:
  cut | plug [a|b]           the cable's end, as the network card sees it
  lose a|b PERCENT [MATCH]   drop so many of a hundred incoming packets; MATCH in nftables' words, as udp dport 4791; 0: none
  disturb a|b [WORDS]        tc-netem on what goes out, as corrupt 1%; without words: none
  pause | resume [a|b]       stop the processor
  kill | restart [a|b]       power off; boot afresh

In a machine / is the host's root, read-only below a tmpfs; /vm is a folder shared by both and the host (see `up`).
"""

import json
import os
import signal
import socket
import subprocess
import sys

from bed import ROOT
from keeper import ADDRESS
from procs import Failure

MACHINES = ("a", "b")
FAULTS = ("cut", "plug", "lose", "disturb", "pause", "resume", "kill", "restart")


def ask(request):
    """Prints what a command says; the last answer."""
    try:
        with open(ADDRESS, encoding="utf-8") as stream:
            path = json.load(stream)["socket"]
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        raise Failure("no machines are up (./dev vm up)") from None
    with connection, connection.makefile("rw", encoding="utf-8") as stream:
        stream.write(json.dumps(request) + "\n")
        stream.flush()
        for line in stream:
            answer = json.loads(line)
            if "done" in answer:
                if request["do"] == "down":
                    connection.recv(1)  # the keeper's end
                return answer
            for name, target in (("out", sys.stdout), ("err", sys.stderr)):
                if name in answer:
                    target.buffer.write(answer[name].encode("utf-8", "surrogateescape"))
                    target.flush()
    raise Failure("the keeper of the machines has ended")


def running():
    try:
        return ask({"do": "status"})["said"]
    except Failure:
        return None


def up(words):
    build = os.path.abspath(words[0] if words else os.path.join(ROOT, "build", "release"))
    if state := running():
        print(state)
        return 0
    keeper = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py"), build]
    os.makedirs(os.path.dirname(ADDRESS), exist_ok=True)
    with open(os.path.join(os.path.dirname(ADDRESS), "keeper.log"), "wb") as log:
        process = subprocess.Popen(keeper, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True, text=True)
    with process.stdout as stream:
        said = stream.read().strip()  # until it closes its output
    if not said.startswith("up "):
        raise Failure(said or f"the keeper has ended; see {log.name}")
    print(f"{said} s; shared folder /run/vsvm{process.pid}/share")
    print(running())
    return 0


def run(words):
    if len(words) < 2 or words[0] not in MACHINES:
        raise Failure("run a|b COMMAND...")
    argv = words[1:] if len(words) > 2 else ["/bin/bash", "-c", words[1]]
    return ask({"do": "run", "machine": words[0], "argv": argv})["done"]


def fault(verb, words):
    machine = words.pop(0) if words and words[0] in MACHINES else None
    if verb in ("lose", "disturb") and machine is None or verb == "lose" and not words:
        raise Failure(f"{verb} a|b {'PERCENT [MATCH]' if verb == 'lose' else '[WORDS]'}")
    answer = ask({"do": verb, "machine": machine, "words": words})
    if answer["said"]:
        print(answer["said"])
    return answer["done"]


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    verb, words = (sys.argv[1] if len(sys.argv) > 1 else "help"), sys.argv[2:]
    try:
        if verb == "up":
            return up(words)
        if verb == "run":
            return run(words)
        if verb == "status":
            print(running() or "no machines are up")
            return 0
        if verb == "down":
            if running() is not None:
                ask({"do": "down"})
            return 0
        if verb in FAULTS:
            return fault(verb, words)
    except Failure as failure:
        print(f"vm: {failure}", file=sys.stderr)
        return 1
    print(__doc__)
    return 0 if verb in ("help", "-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
