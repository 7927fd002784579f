"""iperf3, sockperf and nginx between two pods: the servers in one, the clients in the other."""

import hashlib
import json
import os
import re

from suite import FAIL, PASS, Suite


class TwoPods(Suite):
    """`tests`: unit -> arguments of the client."""

    port = 0
    tests = {}
    seconds = 2  # of each test that has a duration

    def units(self, short):
        if short:
            self.seconds = 1
        return list(self.tests)

    def server_argv(self, context):
        raise NotImplementedError

    def begin(self, context):
        self.server = context.pod.start(self.server_argv(context), shim=context.shim)
        self.server.wait_listening(self.port)

    def end(self, context):
        # SIGTERM, so that the shim writes its statistics.
        self.server.stop()

    def outcomes(self, context, unit, checks):
        """A unit's results from named truths."""
        return {name: PASS if good else FAIL for name, good in {**checks, "server lives": self.server.alive()}.items()}


class IperfSuite(TwoPods):
    name = "iperf3"
    port = 5201
    tests = {
        "plain": [], "reverse": ["-R"], "both ways": ["--bidir"], "4 streams": ["-P", "4"], "4 streams reverse": ["-P", "4", "-R"],
        "sendfile": ["-Z"], "by bytes": ["-n", "500M"], "small writes": ["-l", "128"],
        "odd writes": ["-l", "99991"], "window": ["-w", "64K"],
        "paced": ["-b", "200M"], "no delay": ["-N", "-l", "1K"],
    }

    def server_argv(self, context):
        return ["iperf3", "-s", "-p", self.port]

    def run_unit(self, context, unit):
        duration = [] if "-n" in self.tests[unit] else ["-t", self.seconds]
        argv = ["iperf3", "-c", context.pod.ip, "-p", self.port, "-J", *duration, *self.tests[unit]]
        status, output = context.run(argv, pod=context.peer, timeout=90)
        context.keep(unit, output)
        try:
            report = json.loads(output)
        except ValueError:
            report = {"error": "not JSON"}
        end = report.get("end", {})
        received = end.get("sum_received", {}).get("bytes", 0)
        checks = {"exit status": status == 0, "no error": "error" not in report, "data moved": received > 0}
        if unit == "both ways":
            checks["data moved back"] = end.get("sum_received_bidir_reverse", {}).get("bytes", 0) > 0
        return self.outcomes(context, unit, checks)


class SockperfSuite(TwoPods):
    name = "sockperf"
    port = 11111
    tests = {
        "ping-pong": ["pp", "-m", "64"], "ping-pong large": ["pp", "-m", "9000"], "ping-pong by epoll": ["pp", "-m", "64", "-F", "e"],
        "throughput": ["tp", "-m", "1024"], "throughput small": ["tp", "-m", "16"], "under load": ["ul", "-m", "64", "--mps", "20000"],
    }

    def server_argv(self, context):
        return ["sockperf", "sr", "--tcp", "-i", context.pod.ip, "-p", self.port]

    def run_unit(self, context, unit):
        mode, *options = self.tests[unit]
        if "-F" in options:
            feed = os.path.join(context.work, "feed")
            with open(feed, "w", encoding="utf-8") as stream:
                stream.write(f"T:{context.pod.ip}:{self.port}\n")
            where = ["-f", feed]
            options = [*options[: options.index("-F")], "-F", "e"]
        else:
            where = ["--tcp", "-i", context.pod.ip, "-p", self.port]
        if mode == "pp":
            options += ["--mps", "5000000"]  # its own limit, 600,000 messages a second, is below what a ring does
        status, output = context.run(["sockperf", mode, *where, "-t", self.seconds, *options], pod=context.peer, timeout=60)
        context.keep(unit, output)
        checks = {"exit status": status == 0}
        if mode == "tp":
            checks["messages sent"] = float((re.search(r"Message Rate is ([\d.]+)", output) or [0, 0])[1]) > 0
        else:
            checks["messages came back"] = int((re.search(r"ReceivedMessages=(\d+)", output) or [0, 0])[1]) > 0
            checks["none lost, repeated or reordered"] = bool(
                re.search(r"# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0", output)
            )
        return self.outcomes(context, unit, checks)


NGINX = """\
daemon off; master_process {master}; pid {work}/nginx.pid; error_log {work}/error.log; {user}
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u;
  scgi_temp_path {work}/s; client_max_body_size 64m; keepalive_requests 1000000;
  server {{ listen {port}; root {work}/files; sendfile on; tcp_nopush on; }}
  server {{ listen {copy_port}; root {work}/files; sendfile off; }}
  server {{ listen {proxy_port}; location / {{ proxy_pass http://{ip}:{port}; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
"""


class NginxSuite(TwoPods):
    name = "nginx"
    port, copy_port, proxy_port = 8080, 8081, 8082
    sizes = {"small": 100, "page": 30_000, "large": 20_000_000}
    tests = {f"{size} by {way}": (size, way) for size in sizes for way in ("sendfile", "copy", "proxy")} | {
        "ab keep-alive": ("page", "ab", "-k"), "ab one by one": ("page", "ab"),
    }

    def prepare(self, context):
        files = os.path.join(context.work, "files")
        os.makedirs(files, exist_ok=True)
        self.hashes = {}
        for name, size in self.sizes.items():
            body = hashlib.shake_256(name.encode()).digest(size)
            self.hashes[name] = hashlib.sha256(body).hexdigest()
            with open(os.path.join(files, name), "wb") as stream:
                stream.write(body)

    def server_argv(self, context):
        config = os.path.join(context.work, "nginx.conf")
        with open(config, "w", encoding="utf-8") as stream:
            stream.write(
                NGINX.format(
                    work=context.work, port=self.port, copy_port=self.copy_port, proxy_port=self.proxy_port, ip=context.pod.ip, master="on",
                    user="user root;",
                )
            )
        return ["nginx", "-c", config, "-e", os.path.join(context.work, "error.log")]

    def run_unit(self, context, unit):
        size, way, *options = self.tests[unit]
        if way == "ab":
            argv = ["ab", "-q", "-n", "2000", "-c", "8", *options, f"http://{context.pod.ip}:{self.port}/{size}"]
            status, output = context.run(argv, pod=context.peer, timeout=90)
            context.keep(unit, output)
            return self.outcomes(
                context, unit,
                {
                    "exit status": status == 0,
                    "all complete": "Complete requests:      2000" in output,
                    "none failed": "Failed requests:        0" in output,
                },
            )
        port = {"sendfile": self.port, "copy": self.copy_port, "proxy": self.proxy_port}[way]
        fetched = os.path.join(context.work, "fetched")
        url = f"http://{context.pod.ip}:{port}/{size}"
        # The same URL three times over one connection.
        argv = ["curl", "-sS", "--fail", "--max-time", "20", "-o", fetched, url, "-o", fetched + "2", url, "-o", fetched + "3", url]
        status, output = context.run(argv, pod=context.peer, timeout=90)
        context.keep(unit, output)
        checks = {"exit status": status == 0}
        for number in ("", "2", "3"):
            checks[f"bytes {number or 1}"] = os.path.exists(fetched + number) and _sha256(fetched + number) == self.hashes[size]
        return self.outcomes(context, unit, checks)


def _sha256(path):
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()
