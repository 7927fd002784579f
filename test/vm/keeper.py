#!/usr/bin/env python3
"""Keeps a bed up between calls of ./dev vm: owns its machines, and does what is asked over a UNIX socket.

usage: keeper.py BUILD, started by vm.py. Says "up SECONDS" or what went wrong on standard output, then closes it.

A request is one line of JSON, {"do": verb, ...}; the answer is lines of JSON: {"out": text} and {"err": text} while a command runs, and at
last {"done": status, "said": text}.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading

from bed import CACHE, Bed
from procs import Failure
from wire import STDOUT

ADDRESS = os.path.join(CACHE, "bed.json")  # says where the keeper of this tree listens


class Keeper:
    def __init__(self, bed):
        self.bed = bed
        self.orders = queue.Queue()  # for the main thread: a machine dies with the thread that started it
        self.stopping = threading.Event()

    def serve(self):
        path = os.path.join(self.bed.folder, "keeper")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(16)
        with open(ADDRESS + ".new", "w", encoding="utf-8") as stream:
            json.dump({"socket": path, "pid": os.getpid()}, stream)
        os.rename(ADDRESS + ".new", ADDRESS)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        print(f"up {self.bed.up_seconds:.1f}", flush=True)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        while (order := self.orders.get()) is not None:
            order()

    def _accept(self, listener):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        # Who asked may go at any moment, also while the stream's rest is written at its closing.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError), connection, connection.makefile("rw", encoding="utf-8") as stream:
            lock = threading.Lock()

            def say(**members):
                with lock:
                    stream.write(json.dumps(members) + "\n")
                    stream.flush()

            try:
                request = json.loads(stream.readline())
                if request["do"] == "run":
                    say(done=self._run(request, say, connection), said="")
                else:
                    self._in_main(request, say)
            except (Failure, KeyError, ValueError) as problem:
                say(done=1, said=str(problem))

    def _run(self, request, say, connection):
        def watch(kind, data):
            text = data.decode("utf-8", "surrogateescape")
            say(**{"out" if kind == STDOUT else "err": text})

        machine = self.bed.machines[request["machine"]]
        command = machine.start_command(request["argv"], stdin=request.get("stdin", "").encode(), watch=watch)
        gone = threading.Thread(target=self._hang_up, args=(command, connection), daemon=True)
        gone.start()
        try:
            status = command.wait(request.get("timeout"))
        except subprocess.TimeoutExpired:
            command.kill()
            say(err=f"not within {request['timeout']} s\n")
            status = 124
        return status if status >= 0 else 128 - status

    @staticmethod
    def _hang_up(command, connection):
        """Who asked has gone: so goes the command."""
        try:
            connection.recv(1)
        except OSError:
            pass
        command.send_signal(signal.SIGTERM)

    def _in_main(self, request, say):
        done = threading.Event()

        def order():
            try:
                say(done=0, said=self._do(request) or "")
            except Failure as failure:
                say(done=1, said=str(failure))
            finally:
                done.set()

        self.orders.put(order)
        if request["do"] == "down":
            self.orders.put(None)
        done.wait()

    def _do(self, request):
        verb, words = request["do"], request.get("words", [])
        if verb == "status":
            return "\n".join(f"{m.name} {m.address} {'pid ' + str(m.pid) if m.alive() else 'off'}" for m in self.bed.machines.values())
        if verb == "down":
            self.bed.down()
            return "down"
        targets = [self.bed.machines[request["machine"]]] if request.get("machine") else list(self.bed.machines.values())
        actions = {
            "cut": lambda machine: machine.plug(False),
            "plug": lambda machine: machine.plug(True),
            "pause": lambda machine: machine.pause(),
            "resume": lambda machine: machine.resume(),
            "kill": lambda machine: machine.kill(),
            "restart": lambda machine: machine.restart(),
            "lose": lambda machine: machine.lose(int(words[0]), " ".join(words[1:])),
            "disturb": lambda machine: machine.disturb(*words),
        }
        if verb not in actions:
            raise Failure(f"no verb {verb}")
        for machine in targets:
            actions[verb](machine)
        return None


def main():
    bed = Bed(sys.argv[1])
    try:
        with bed:
            Keeper(bed).serve()
    except Failure as failure:
        print(failure, flush=True)
        return 1
    finally:
        if bed.up_seconds is not None and os.path.exists(ADDRESS):
            os.unlink(ADDRESS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
