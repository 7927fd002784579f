"""Kubernetes objects as plain dictionaries."""


def namespace(name="default", **labels):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}}


def node(name="n1", ip="192.0.2.1"):
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]}}


def pod(name, ip, phase="Running", meta=None, **labels):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": labels, **(meta or {})},
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "none", "ports": [{"containerPort": 80, "name": "http"}]}]},
            "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]}}


def policy(name, selector=None, **spec):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "default"},
            "spec": {"podSelector": {"matchLabels": selector} if selector else {}, **spec}}


def deny_all(name="closed", **selector):
    return policy(name, selector, policyTypes=["Ingress"])


def let_in(name, into, ports=None, **selector):
    """To the pods whose `app` is `into` only from pods with the labels of `selector`."""
    rule = {"from": [{"podSelector": {"matchLabels": selector}}], **({"ports": ports} if ports else {})}
    return policy(name, {"app": into}, ingress=[rule])
