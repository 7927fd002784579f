#!/usr/bin/env python3
"""Runs in a guest: takes commands from the virtio-serial port and runs them as root, their streams and exit status going back.

usage: guest.py PORT, as guest_boot.sh starts it. Each command is a process group of its own and ends with the machine at the latest.
"""

import json
import os
import selectors
import signal
import subprocess
import sys

from wire import EXIT, READY, RUN, SIGNAL, STARTED, STDERR, STDIN, STDOUT, Reader, frame, write_all

PIECE = 65536


class Running:
    """One command: its process, its pipes, and what the host has sent for its standard input and it has not taken yet."""

    def __init__(self, number, process):
        self.number = number
        self.process = process
        self.pidfd = os.pidfd_open(process.pid)
        self.streams = {process.stdout: STDOUT, process.stderr: STDERR}
        self.pending = bytearray()
        self.input_ends = False
        for stream in (*self.streams, process.stdin):
            os.set_blocking(stream.fileno(), False)


class Server:
    def __init__(self, port):
        self.port = port
        self.reader = Reader()
        self.commands = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(port, selectors.EVENT_READ, self.read_port)
        self.open = True

    def say(self, kind, number, payload=b""):
        write_all(self.port, frame(kind, number, payload))

    def serve(self):
        """Until the host hangs up."""
        while self.open:
            for key, _ in self.selector.select():
                key.data()
        for command in list(self.commands.values()):
            self.send_signal(command, signal.SIGKILL)

    def read_port(self):
        data = os.read(self.port, PIECE)
        if not data:
            self.open = False
            return
        for kind, number, payload in self.reader.feed(data):
            if kind == RUN:
                self.start(number, json.loads(payload))
            elif number in self.commands:
                command = self.commands[number]
                if kind == STDIN:
                    command.pending += payload
                    command.input_ends = command.input_ends or not payload
                    self.feed(command)
                elif kind == SIGNAL:
                    self.send_signal(command, json.loads(payload))

    def start(self, number, order):
        environment = dict(os.environ)
        for key, value in order.get("env", {}).items():
            if value is None:
                environment.pop(key, None)
            else:
                environment[key] = value
        try:
            pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
            process = subprocess.Popen(
                order["argv"], **pipes, bufsize=0, env=environment, cwd=order.get("cwd") or "/", start_new_session=True, close_fds=True
            )
        except OSError as error:
            self.say(EXIT, number, {"status": 127, "error": str(error)})
            return
        command = Running(number, process)
        self.commands[number] = command
        self.say(STARTED, number, {"pid": process.pid})
        for stream in command.streams:
            self.selector.register(stream, selectors.EVENT_READ, lambda stream=stream: self.pass_on(command, stream))
        self.selector.register(command.pidfd, selectors.EVENT_READ, lambda: self.end(command))

    def feed(self, command):
        """Gives the command as much of its input as it takes now; the rest when it takes more."""
        stdin = command.process.stdin
        if stdin.closed:
            return
        try:
            while command.pending:
                taken = stdin.write(command.pending[:PIECE])
                if taken is None:
                    self.watch(stdin, lambda: self.feed(command))
                    return
                del command.pending[:taken]
        except BrokenPipeError:
            command.pending.clear()
            command.input_ends = True
        self.forget(stdin)
        if command.input_ends:
            stdin.close()

    def watch(self, stream, action):
        if stream.fileno() not in self.selector.get_map():
            self.selector.register(stream, selectors.EVENT_WRITE, action)

    def forget(self, stream):
        if not stream.closed and stream.fileno() in self.selector.get_map():
            self.selector.unregister(stream)

    def pass_on(self, command, stream):
        """One piece of output to the host. False when there is none now, or will be none."""
        if stream.closed:
            return False
        data = stream.read(PIECE)
        if data:
            self.say(command.streams[stream], command.number, data)
        elif data == b"":
            self.forget(stream)
            stream.close()
        return bool(data)

    def end(self, command):
        """The process has ended. What it has written is passed on; who inherited its pipes is not waited for."""
        for stream in command.streams:
            while self.pass_on(command, stream):
                pass
            self.forget(stream)
            stream.close()
        self.forget(command.process.stdin)
        command.process.stdin.close()
        self.selector.unregister(command.pidfd)
        os.close(command.pidfd)
        del self.commands[command.number]
        self.say(EXIT, command.number, {"status": command.process.wait()})

    @staticmethod
    def send_signal(command, number):
        # Its group's number cannot be another's while we have not waited for it.
        os.killpg(command.process.pid, number)


def main():
    port = os.open(sys.argv[1], os.O_RDWR | os.O_CLOEXEC)
    server = Server(port)
    with open("/proc/uptime", encoding="ascii") as stream:
        server.say(READY, 0, {"uptime": float(stream.read().split()[0])})
    server.serve()


if __name__ == "__main__":
    main()
