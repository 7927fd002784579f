"""A node (test/lib/pods.py) whose agent follows a real API server, which runs in the node's own network namespace."""

import contextlib
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

import pods  # noqa: E402
from cluster_objects import node as node_object  # noqa: E402
from cluster_objects import pod as pod_object  # noqa: E402
from control_plane import SERVER, control_plane  # noqa: E402


class KubeNode(pods.Node):
    """Pods are announced to the API server instead of being written into a directory."""

    plane = None

    def write_cluster(self, name, text):
        pass  # no directory is read

    def uid_for(self, name, ns, labels):
        """The API server gives it out, as in a cluster: the object comes first, its network later."""
        item = pod_object(name, "", **labels)
        del item["status"]
        self.plane.apply(item)
        return self.plane.kubectl("get", "pod", name, "-o", "jsonpath={.metadata.uid}").stdout

    def add_pod(self, name, **options):
        added = super().add_pod(name, **options)
        self.plane.put_status(pod_object(name, added.ip))
        return added


@contextlib.contextmanager
def kube_node(build, agent_flags=()):
    """A node with a control plane and a running agent."""
    with KubeNode(build, agent_flags=[]) as node:
        work = os.path.join(node.work, "plane")
        os.makedirs(work)
        token, ca = os.path.join(node.work, "token"), os.path.join(node.work, "api-ca.crt")
        with control_plane(work, node.agent.prefix) as node.plane:
            node.plane.apply(node_object())
            node.plane.make_account(token)
            shutil.copy(node.plane.server_ca, ca)
            node.agent.flags += ["--source=kube", f"--kube-server={SERVER}", f"--kube-ca-file={ca}", f"--kube-token-file={token}",
                                 "--node-name=n1", "--kube-timeout-seconds=5", *agent_flags]
            node.start_agent()
            yield node
