"""Sets of policies for matrix_test.py, each in force alone. Pods: shop/web, shop/api (tier: back), data/db, data/plain."""

NAMESPACES = {"shop": {"team": "a"}, "data": {"team": "b"}}


def policy(name, ns, selects=None, **spec):
    spec["podSelector"] = {"matchLabels": selects} if selects else {}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": ns}, "spec": spec}


def pods(**labels):
    return {"podSelector": {"matchLabels": labels} if labels else {}}


def namespaces(**labels):
    return {"namespaceSelector": {"matchLabels": labels} if labels else {}}


def tcp(port, **more):
    return {"protocol": "TCP", "port": port, **more}


def udp(port, **more):
    return {"protocol": "UDP", "port": port, **more}


BOTH = ["Ingress", "Egress"]
V4, V6 = "10.244.0.0/24", "fd00:244::/64"

SCENARIOS = {
    "none": [],
    "default deny ingress in shop": [policy("deny", "shop")],
    "default deny egress in shop": [policy("deny", "shop", policyTypes=["Egress"])],
    "deny all, both directions, everywhere": [policy("deny", ns, policyTypes=BOTH) for ns in NAMESPACES],
    "one client, one port": [policy("api", "shop", {"app": "api"}, ingress=[{"from": [pods(app="web")], "ports": [tcp(8080)]}])],
    "named ports": [policy("api", "shop", {"app": "api"}, ingress=[{"ports": [tcp("http"), udp("dns"), tcp("dns")]}])],
    "named port for egress, another number each": [
        policy("web", "shop", {"app": "web"}, policyTypes=["Egress"], egress=[{"to": [namespaces()], "ports": [tcp("http")]}])],
    "endPort": [policy("api", "shop", {"app": "api"}, ingress=[{"ports": [tcp(80, endPort=8079), udp(54, endPort=9000)]}])],
    "no port number: every UDP port": [policy("api", "shop", {"app": "api"}, ingress=[{"ports": [{"protocol": "UDP"}]}])],
    "SCTP only": [policy("api", "shop", {"app": "api"}, ingress=[{"ports": [{"protocol": "SCTP", "port": 80}]}])],
    "ipBlock IPv4 but one, IPv6 all": [
        policy("db", "data", {"app": "db"}, ingress=[
            {"from": [{"ipBlock": {"cidr": V4, "except": ["10.244.0.2/32"]}}, {"ipBlock": {"cidr": V6}}]}])],
    "ipBlock of the node for egress": [
        policy("web", "shop", {"app": "web"}, policyTypes=["Egress"],
               egress=[{"to": [{"ipBlock": {"cidr": "10.244.0.1/32"}}], "ports": [tcp(80)]}])],
    "namespace selector": [policy("db", "data", ingress=[{"from": [namespaces(team="a")], "ports": [tcp(80), udp(53)]}])],
    "namespace and pod selector together": [
        policy("db", "data", ingress=[{"from": [namespaces(team="a") | pods(app="web")]}])],
    "namespace or pod selector": [policy("db", "data", ingress=[{"from": [namespaces(team="a"), pods(app="plain")]}])],
    "match expressions": [
        policy("db", "data", ingress=[{"from": [namespaces() | {"podSelector": {"matchExpressions": [
            {"key": "tier", "operator": "DoesNotExist"}, {"key": "app", "operator": "NotIn", "values": ["plain"]}]}}]}])],
    "egress and ingress that must both allow": [
        policy("out", "shop", {"app": "web"}, policyTypes=["Egress"], egress=[{"to": [pods()], "ports": [tcp(80), tcp(8080), udp(53)]}]),
        policy("in", "shop", {"app": "api"}, ingress=[{"from": [pods(app="web")], "ports": [tcp(8080), udp(53)]},
                                                       {"from": [namespaces(team="b")], "ports": [tcp(80)]}])],
    "two policies of one pod add up": [
        policy("one", "shop", {"app": "api"}, ingress=[{"from": [pods(app="web")], "ports": [tcp(80)]}]),
        policy("two", "shop", {"tier": "back"}, ingress=[{"from": [namespaces(team="b")], "ports": [udp(8080)]}])],
    "egress to everything but a block": [
        policy("db", "data", {"app": "db"}, policyTypes=["Egress"], egress=[
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [V4]}}, {"ipBlock": {"cidr": "::/0"}}]}])],
    "none again": [],
}
