"""Commands in a guest, as the host sees them: many at once over one socket, each with its streams, its signals and its exit status."""

import collections
import contextlib
import json
import signal
import socket
import subprocess
import threading

from procs import Failure
from wire import EXIT, READY, RUN, SIGNAL, STARTED, STDERR, STDIN, STDOUT, Reader, frame

PIECE = 65536
GONE = 255  # the status of a command whose machine has ended

Done = collections.namedtuple("Done", "returncode stdout stderr")


class Command:
    """One command that runs, or ran, in a guest. Thread safety: every method from any thread."""

    def __init__(self, port, number, argv, watch=None):
        self.argv = [str(word) for word in argv]
        self.pid = None  # in the guest
        self.returncode = None
        self._port, self._number, self._watch = port, number, watch
        self._output = {STDOUT: bytearray(), STDERR: bytearray()}
        self._changed = threading.Condition()

    # What the port's thread tells.
    def heard(self, kind, payload):
        if self._watch and kind in self._output:
            self._watch(kind, payload)
        with self._changed:
            if kind in self._output:
                self._output[kind] += payload
            elif kind == STARTED:
                self.pid = json.loads(payload)["pid"]
            elif kind == EXIT:
                told = json.loads(payload)
                self._output[STDERR] += told.get("error", "").encode()
                self.returncode = told["status"]
            self._changed.notify_all()

    def _text(self, *kinds):
        with self._changed:
            return "".join(self._output[kind].decode("utf-8", "replace") for kind in kinds)

    @property
    def stdout(self):
        return self._text(STDOUT)

    @property
    def stderr(self):
        return self._text(STDERR)

    def output(self):
        return self._text(STDOUT, STDERR)

    def alive(self):
        return self.returncode is None

    def send(self, data):
        """To its standard input."""
        for start in range(0, len(data), PIECE):
            self._port.send(frame(STDIN, self._number, data[start : start + PIECE]))

    def end_input(self):
        self._port.send(frame(STDIN, self._number))

    def send_signal(self, number):
        """To its process group."""
        if self.alive():
            self._port.send(frame(SIGNAL, self._number, int(number)))

    def wait_for(self, condition, what, timeout):
        """Until `condition()` is true. Raises Failure when the command ends without, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or not self.alive(), timeout)
            if not condition():
                how = f"it ended with {self.returncode}" if not self.alive() else f"not within {timeout:g} s"
                raise Failure(f"{self._port.name}: {' '.join(self.argv)}: {what}: {how}: {self.output()[-2000:]}")

    def wait_said(self, text, timeout=30.0):
        self.wait_for(lambda: text in self.output(), f"says {text!r}", timeout)
        return self

    def wait(self, timeout=None):
        """The exit status: negative is the signal, 255 that the machine has ended. Raises subprocess.TimeoutExpired."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self.alive(), timeout):
                raise subprocess.TimeoutExpired(self.argv, timeout)
            return self.returncode

    def kill(self):
        self.send_signal(signal.SIGKILL)
        return self.wait(30)

    def stop(self, timeout=10.0):
        """SIGTERM, then SIGKILL when that does not help. Returns the exit status."""
        self.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()


class Port:
    """The host's end of a guest's command port."""

    def __init__(self, name, path):
        self.name = name  # of the machine
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._commands, self._last = {}, 0
        self._lock = threading.Lock()  # guards the commands
        self._sending = threading.Lock()  # keeps frames whole; another one, because a blocked sender must not keep us from listening
        self._ready = threading.Condition()
        self.boot_seconds = None  # as the guest's clock counts; None: it is not ready
        self.gone = False
        self._thread = threading.Thread(target=self._listen, name=f"port of {name}", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout):
        with self._ready:
            self._ready.wait_for(lambda: self.gone or self.boot_seconds is not None, timeout)
            return self.boot_seconds is not None and not self.gone

    def start(self, argv, env=None, cwd=None, stdin=b"", watch=None):
        """Starts a command. `stdin` None: its input stays open for send(). `watch(kind, bytes)` is called with each piece of output."""
        with self._lock:
            if self.gone:
                raise Failure(f"{self.name} is not running")
            self._last += 1
            number = self._last
            command = self._commands[number] = Command(self, number, argv, watch)
        self.send(frame(RUN, number, {"argv": command.argv, "env": env or {}, "cwd": cwd}))
        if stdin is not None:
            command.send(stdin)
            command.end_input()
        return command

    def run(self, argv, env=None, cwd=None, stdin=b"", timeout=60, check=True):
        """subprocess.run in the guest; raises Failure with what it said when it fails, unless check=False."""
        command = self.start(argv, env, cwd, stdin)
        try:
            command.wait(timeout)
        except subprocess.TimeoutExpired:
            command.send_signal(signal.SIGKILL)
            raise Failure(f"{self.name}: {' '.join(command.argv)}: not within {timeout} s: {command.output()[-2000:]}") from None
        if check and command.returncode != 0:
            said = (command.stderr or command.stdout).strip()[-2000:]
            raise Failure(f"{self.name}: {' '.join(command.argv)}: exit {command.returncode}: {said}")
        return Done(command.returncode, command.stdout, command.stderr)

    def send(self, data):
        with contextlib.suppress(OSError), self._sending:  # the listening thread sees the end, and ends the commands
            self._socket.sendall(data)

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _listen(self):
        reader = Reader()
        try:
            while data := self._socket.recv(PIECE):
                for kind, number, payload in reader.feed(data):
                    self._heard(kind, number, payload)
        except OSError:
            pass  # as good as the end
        with self._ready:
            self.gone = True
            self._ready.notify_all()
        with self._lock:
            left, self._commands = list(self._commands.values()), {}
        for command in left:
            command.heard(EXIT, json.dumps({"status": GONE, "error": f"{self.name} has ended"}).encode())

    def _heard(self, kind, number, payload):
        if kind == READY:
            with self._ready:
                self.boot_seconds = json.loads(payload)["uptime"]
                self._ready.notify_all()
            return
        with self._lock:
            command = self._commands.pop(number, None) if kind == EXIT else self._commands.get(number)
        if command:
            command.heard(kind, payload)
