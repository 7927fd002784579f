"""A real kube-apiserver and a real etcd, each a process that can be killed and started again, with storage that outlives both.

They run where `prefix` says (a network namespace), on 127.0.0.1. The binaries are those that build_control_plane.sh makes.
"""

import contextlib
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from certificates import Authority  # noqa: E402
from procs import Failure, Process, run, wait_until  # noqa: E402

SERVER = "https://127.0.0.1:6443"
ETCD = "http://127.0.0.1:2379"
ACCOUNT = "vsocket-agent"
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]
clusters: [{{name: test, cluster: {{server: "{server}", certificate-authority: {ca}}}}}]
users: [{{name: admin, user: {{client-certificate: {cert}, client-key: {key}}}}}]
"""


def binaries():
    """The folder of the binaries; they are built when they are not there. Raises Failure when that cannot be done."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.environ.get("VSOCKET_CONTROL_PLANE") or os.path.join(cache, "vsocket", "control-plane")
    done = subprocess.run([os.path.join(HERE, "build_control_plane.sh"), folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"kube-apiserver could not be built: {done.stderr.strip()[-2000:]}")
    return folder


class ControlPlane:
    def __init__(self, work, prefix=()):
        self.work, self.prefix = work, list(prefix)
        self.bin = binaries()
        self.etcd = self.apiserver = None
        self.ca = Authority(work)
        self.serving = self.ca.issue("apiserver", "/CN=kube-apiserver")
        self.admin = self.ca.issue("admin", "/O=system:masters/CN=admin")
        run(["openssl", "genrsa", "-out", self.path("sa.key"), "2048"])
        run(["openssl", "rsa", "-in", self.path("sa.key"), "-pubout", "-out", self.path("sa.pub")])
        self.server_ca = self.ca.cert  # whom clients of the server must trust
        self._write_kubeconfig()

    def path(self, name):
        return os.path.join(self.work, name)

    def _write_kubeconfig(self):
        cert, key = self.admin
        with open(self.path("kubeconfig"), "w", encoding="utf-8") as stream:
            stream.write(KUBECONFIG.format(server=SERVER, ca=self.server_ca, cert=cert, key=key))

    def start(self):
        # An address that can be advertised; nobody connects to it.
        run([*self.prefix, "ip", "addr", "replace", "192.0.2.10/32", "dev", "lo"])
        self.start_etcd()
        self.start_apiserver()
        return self

    def start_etcd(self):
        argv = [*self.prefix, os.path.join(self.bin, "etcd"), "--data-dir", self.path("etcd"), "--unsafe-no-fsync",
                "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD, "--listen-peer-urls", "http://127.0.0.1:2380",
                "--log-level", "warn"]
        self.etcd = Process(argv, self.path("etcd.log")).wait_listening(2379, 60)

    def start_apiserver(self, wait=True):
        cert, key = self.serving
        argv = [*self.prefix, os.path.join(self.bin, "kube-apiserver"), f"--etcd-servers={ETCD}", "--secure-port=6443",
                "--bind-address=127.0.0.1", "--advertise-address=192.0.2.10", "--endpoint-reconciler-type=none",
                "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
                "--disable-admission-plugins=ServiceAccount", f"--client-ca-file={self.ca.cert}", f"--tls-cert-file={cert}",
                f"--tls-private-key-file={key}", "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self.path('sa.pub')}", f"--service-account-signing-key-file={self.path('sa.key')}",
                f"--cert-dir={self.path('generated')}", "--etcd-compaction-interval=0"]
        self.apiserver = Process(argv, self.path("apiserver.log"))
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=120):
        def ready():
            if not self.apiserver.alive():
                raise Failure(f"kube-apiserver ended: {self.apiserver.output()[-3000:]}")
            return self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0

        wait_until(ready, "kube-apiserver to be ready", timeout, every=0.2)

    def stop(self):
        for process in (self.apiserver, self.etcd):
            if process is not None:
                process.kill()

    def kubectl(self, *words, stdin=None, check=True):
        argv = [*self.prefix, os.path.join(self.bin, "kubectl"), "--kubeconfig", self.path("kubeconfig"), *words]
        return run(argv, input=stdin, check=check, timeout=60)

    def apply(self, *objects):
        """kubectl apply of dictionaries, or of one text of YAML."""
        text = objects[0] if isinstance(objects[0], str) else json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", stdin=text)

    def put_pod(self, item):
        """A pod with its status, which apply does not set."""
        self.apply({key: value for key, value in item.items() if key != "status"})
        self.put_status(item)

    def put_status(self, item):
        meta = item["metadata"]
        patch = json.dumps({"status": item["status"]})
        self.kubectl("patch", "pod", meta["name"], "-n", meta["namespace"], "--subresource=status", "--type=merge", "-p", patch)

    def delete_pod(self, name, namespace="default"):
        self.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force", "--wait=false")

    def make_account(self, token_file):
        """The agent's ServiceAccount with just the rights that it needs, and a token of it in `token_file`."""
        with open(os.path.join(HERE, "rbac.yaml"), encoding="utf-8") as stream:
            self.apply(stream.read())
        self.renew_token(token_file)

    def renew_token(self, token_file):
        token = self.kubectl("create", "token", ACCOUNT, "-n", "kube-system").stdout
        with open(token_file + ".new", "w", encoding="utf-8") as stream:
            stream.write(token)
        os.rename(token_file + ".new", token_file)

    def compact(self):
        """Forgets every revision of etcd but the last."""
        def ask(path, body):
            # etcd's own JSON gateway.
            argv = [*self.prefix, "curl", "-sf", f"{ETCD}/v3/{path}", "-d", json.dumps(body)]
            return json.loads(run(argv).stdout)

        revision = ask("kv/range", {"key": "AA=="})["header"]["revision"]
        ask("kv/compaction", {"revision": revision, "physical": True})

    def serve_with_another_authority(self):
        """Restarts the API server with a certificate of another CA. Clients go on being known by the first."""
        other = Authority(self.work, "other-ca")
        self.serving = other.issue("apiserver-other", "/CN=kube-apiserver")
        self.server_ca = other.cert
        self._write_kubeconfig()
        self.apiserver.kill()
        self.start_apiserver()


@contextlib.contextmanager
def control_plane(work, prefix=()):
    began = time.monotonic()
    plane = ControlPlane(work, prefix)
    try:
        plane.start()
        print(f"kube-apiserver is ready after {time.monotonic() - began:.1f} s", flush=True)
        yield plane
    finally:
        plane.stop()
