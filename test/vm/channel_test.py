#!/usr/bin/env python3
"""The guest's command server and the host's end of it, without a machine: the port is a UNIX socket, and commands run here."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

import guest  # noqa: E402
import wire  # noqa: E402
from commands import GONE, Port  # noqa: E402
from initrd import Archive  # noqa: E402
from procs import Failure  # noqa: E402

SERVER = f"""
import os, sys
sys.path.insert(0, {HERE!r})
import guest
server = guest.Server(int(sys.argv[1]))
server.say(guest.READY, 0, {{"uptime": 1.5}})
server.serve()
"""


class ChannelTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        path = os.path.join(self.folder.name, "port")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            self.port = Port("x", path)
            accepted, _ = listener.accept()
        with accepted:
            argv = [sys.executable, "-c", SERVER, str(accepted.fileno())]
            self.server = subprocess.Popen(argv, pass_fds=[accepted.fileno()])
        self.addCleanup(self.end)
        self.assertTrue(self.port.wait_ready(30))

    def end(self):
        self.port.close()
        self.assertEqual(self.server.wait(30), 0)

    def test_the_server_says_when_it_is_ready(self):
        self.assertEqual(self.port.boot_seconds, 1.5)

    def test_streams_and_status_come_back_apart(self):
        done = self.port.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
        self.assertEqual(done, (3, "out\n", "err\n"))

    def test_a_failure_is_raised_with_what_was_said(self):
        with self.assertRaisesRegex(Failure, "exit 1: no such luck"):
            self.port.run(["/bin/sh", "-c", "echo no such luck >&2; exit 1"])

    def test_what_cannot_be_started_says_why(self):
        done = self.port.run(["/no/such/program"], check=False)
        self.assertEqual(done.returncode, 127)
        self.assertIn("No such file", done.stderr)

    def test_environment_and_folder(self):
        done = self.port.run(["/bin/sh", "-c", "pwd; echo $WORD ${HOME-none}"], env={"WORD": "said", "HOME": None}, cwd="/proc")
        self.assertEqual(done.stdout, "/proc\nsaid none\n")

    def test_much_input_comes_back_whole(self):
        data = os.urandom(3_000_000).hex()
        done = self.port.run(["cat"], stdin=data.encode())
        self.assertTrue(done.stdout == data)

    def test_input_that_nobody_takes_is_dropped(self):
        self.assertEqual(self.port.run(["true"], stdin=bytes(1_000_000)).returncode, 0)

    def test_a_dialogue(self):
        command = self.port.start(["/bin/sh", "-c", "while read -r word; do echo heard $word; done"], stdin=None)
        for word in ("one", "two"):
            command.send(word.encode() + b"\n")
            command.wait_said(f"heard {word}\n")
        command.end_input()
        self.assertEqual(command.wait(30), 0)

    def test_a_signal_reaches_the_whole_group(self):
        command = self.port.start(["/bin/sh", "-c", "sleep 1000 & echo $!; wait"])
        command.wait_said("\n")
        child = int(command.stdout)
        # Not /bin/sh's child any more once that has gone, so nobody's: until then a handle that cannot mean another process.
        handle = os.pidfd_open(child)
        self.addCleanup(os.close, handle)
        command.send_signal(signal.SIGKILL)
        self.assertEqual(command.wait(30), -signal.SIGKILL)
        self.assertTrue(select.select([handle], [], [], 30)[0])

    def test_who_inherits_the_pipes_is_not_waited_for(self):
        done = self.port.run(["/bin/sh", "-c", "sleep 1000 & echo $!"], timeout=30)
        os.kill(int(done.stdout), signal.SIGKILL)
        self.assertEqual(done.returncode, 0)

    def test_commands_run_at_the_same_time(self):
        slow = self.port.start(["cat"], stdin=None)
        self.assertEqual(self.port.run(["echo", "quick"]).stdout, "quick\n")
        self.assertTrue(slow.alive())
        slow.end_input()
        self.assertEqual(slow.wait(30), 0)

    def test_waiting_for_a_word_ends_with_the_command(self):
        with self.assertRaisesRegex(Failure, "it ended with 4"):
            self.port.start(["/bin/sh", "-c", "exit 4"]).wait_said("never", timeout=30)

    def test_commands_end_with_their_machine(self):
        command = self.port.start(["sleep", "1000"])
        command.wait_for(lambda: command.pid is not None, "has started", 30)
        self.server.kill()
        self.assertEqual(command.wait(30), GONE)
        self.assertEqual(self.server.wait(), -signal.SIGKILL)
        os.kill(command.pid, signal.SIGKILL)  # what was left of it
        with self.assertRaises(Failure):
            self.port.start(["true"])
        self.server = subprocess.Popen(["true"])


class WireTest(unittest.TestCase):
    def test_frames_in_any_pieces(self):
        sent = [(wire.STDOUT, 7, b"abc"), (wire.EXIT, 8, b'{"status": 0}'), (wire.STDIN, 9, b"")]
        stream = b"".join(wire.frame(*one) for one in sent)
        for size in (1, 5, 9, len(stream)):
            reader = wire.Reader()
            heard = [one for start in range(0, len(stream), size) for one in reader.feed(stream[start : start + size])]
            self.assertEqual(heard, sent, size)

    def test_garbage_is_refused(self):
        with self.assertRaises(wire.Garbled):
            list(wire.Reader().feed(b"\xff" * 9))
        with self.assertRaises(wire.Garbled):
            wire.frame(wire.STDIN, 1, bytes(wire.LONGEST + 1))


class ArchiveTest(unittest.TestCase):
    def test_busybox_reads_it(self):
        archive = Archive()
        archive.add("folder", 0o040755)
        archive.add("folder/file", 0o100644, b"content!?")
        archive.add("folder/link", 0o120777, b"file")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["busybox", "cpio", "-i"], input=archive.bytes(), cwd=folder, check=True, capture_output=True)
            with open(os.path.join(folder, "folder", "link"), "rb") as stream:
                self.assertEqual(stream.read(), b"content!?")


if __name__ == "__main__":
    assert guest.PIECE <= wire.LONGEST
    unittest.main()
