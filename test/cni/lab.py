"""A node for CNI tests that nobody else can see: its own network and mount namespaces, so bridge, veths and iptables rules, named
namespaces and plugin state all vanish with the test, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
INSIDE = "VSOCKET_CNI_LAB"
PING = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
s.sendall(b"ping"); s.shutdown(socket.SHUT_WR)
print(s.makefile().read())
"""
ECHO = """
import socket
l = socket.create_server(("0.0.0.0", 7007)); print("listening", flush=True)
while True:
    c, _ = l.accept(); c.sendall(c.makefile("rb").read()); c.close()
"""


def enter():
    """Runs this program again inside the namespaces; returns there only."""
    if os.environ.get(INSIDE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        os.makedirs("/run/netns", exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"], check=True)
        return
    if os.geteuid() != 0:
        sys.exit("this test makes network namespaces and needs root")
    command = ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, *sys.argv]
    os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})


class Lab:
    """Namespaces, processes and a folder for one test. close() ends each process by its own pid."""

    def __init__(self):
        self.work = tempfile.mkdtemp(prefix="vsk-cni-")
        self.processes, self.namespaces = [], []

    def close(self):
        for process in reversed(self.processes):
            self.stop(process)
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.work)

    def path(self, *names):
        return os.path.join(self.work, *names)

    def make_netns(self, name):
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.namespaces.append(name)
        return f"/run/netns/{name}"

    def delete_netns(self, name):
        subprocess.run(["ip", "netns", "del", name], check=True)
        self.namespaces.remove(name)

    def spawn(self, argv, says):
        """Starts a program and waits until a line of its output contains `says`."""
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.processes.append(process)
        seen = ""
        for line in process.stdout:
            seen += line
            if says in line:
                return process
        raise AssertionError(f"{argv[0]} ended with {process.wait()}: {seen}")

    def stop(self, process):
        """SIGTERM, then SIGKILL when that does not help."""
        if process.returncode is not None:
            return
        thaw(process)
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def serve_echo(self, name):
        self.spawn(["ip", "netns", "exec", name, sys.executable, "-c", ECHO], "listening")

    def ping(self, name, address, port=7007):
        """A TCP round trip from the namespace `name`. The answer's text."""
        done = subprocess.run(
            ["ip", "netns", "exec", name, sys.executable, "-c", PING, address, str(port)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return done.stdout.strip() or done.stderr


def freeze(process):
    """SIGSTOP, and wait until it has stopped: a signal is delivered when the kernel gets to it."""
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def thaw(process):
    process.send_signal(signal.SIGCONT)
