"""The twenty things about NetworkPolicy that are easily got wrong, as Kubernetes objects and flows. The number is the one that the
evaluator's tests have too (evaluator_cases_test.cc). Each flow says what we expect."""

WEB, DB, OTHER_WEB, BARE, OUTSIDE, NODE = "10.0.1.1", "10.0.1.2", "10.0.2.1", "10.0.2.2", "192.0.2.1", "10.0.0.1"


def pod(ns, name, ip, labels=None, ports=(), **spec):
    containers = [
        {"name": f"container-{number}", "image": "none", "ports": [dict(zip(("name", "containerPort", "protocol"), port))]}
        for number, port in enumerate(ports)
    ] or [{"name": "main", "image": "none"}]
    status = {"phase": spec.pop("phase", "Running"), "podIP": ip, "podIPs": [{"ip": ip}] + [{"ip": more} for more in spec.pop("ips", [])]}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": ns, "name": name, "labels": labels or {}},
        "spec": {"nodeName": "node", "containers": containers, **spec}, "status": status,
    }


def policy(ns, selector, ingress=None, egress=None, name="policy"):
    spec = {"podSelector": selector, "policyTypes": []}
    for kind, rules in (("Ingress", ingress), ("Egress", egress)):
        if rules is not None:
            spec["policyTypes"].append(kind)
            if rules:  # an empty list is not written: the API server does not hand one out
                spec[kind.lower()] = rules
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": ns, "name": name}, "spec": spec}


def app(name):
    return {"matchLabels": {"app": name}}


def team(name):
    return {"matchLabels": {"team": name}}


def pods():
    return [
        pod("a", "web", WEB, {"app": "web"}, [("http", 8080, "TCP")]),
        pod("a", "db", DB, {"app": "db"}, [("sql", 5432, "TCP")]),
        pod("b", "web", OTHER_WEB, {"app": "web"}, [("http", 9090, "TCP")]),
        pod("b", "bare", BARE),
    ]


def tcp(port=None, end=None):
    return {key: value for key, value in (("protocol", "TCP"), ("port", port), ("endPort", end)) if value is not None}


def case(title, policies, flows, cluster=None, namespaces=None):
    """`flows`: (source, destination, port, allowed[, protocol])"""
    labels = namespaces or {"a": {"team": "a"}, "b": {"team": "b"}}
    return {
        "name": title,
        "nodes": [NODE],
        "namespaces": [
            {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **more}}} for name, more in labels.items()
        ],
        "pods": cluster or pods(),
        "policies": policies,
        "flows": [
            {"source": flow[0], "destination": flow[1], "port": flow[2], "protocol": flow[4] if len(flow) > 4 else "TCP"} for flow in flows
        ],
        "expected": "".join("1" if flow[3] else "0" for flow in flows),
    }


def with_web(**changes):
    """The pods, with a/web changed."""
    return [pod("a", "web", WEB, {"app": "web"}, changes.pop("ports", [("http", 8080, "TCP")]), **changes), *pods()[1:]]


def unlabelled(selector):
    return [policy("a", {}, ingress=[{"from": [{"podSelector": selector, "namespaceSelector": {}}]}]), policy("b", selector, ingress=[])]


ALL = {}

CASES = [
    case("01 a named port is the destination's",
         [policy("a", app("db"), egress=[{"to": [{"namespaceSelector": ALL}], "ports": [tcp("http")]}])],
         [(DB, WEB, 8080, True), (DB, WEB, 9090, False), (DB, BARE, 8080, False), (DB, OUTSIDE, 8080, False)]),
    case("02 one name, different numbers", [policy("a", app("db"), egress=[{"to": [{"namespaceSelector": ALL}], "ports": [tcp("http")]}])],
         [(DB, OTHER_WEB, 9090, True), (DB, OTHER_WEB, 8080, False)]),
    case("03 a named port of another protocol", [policy("a", app("web"), ingress=[{"ports": [{"protocol": "UDP", "port": "http"}]}])],
         [(DB, WEB, 8080, False, "UDP"), (DB, WEB, 8080, False)]),
    case("04 endPort is inclusive", [policy("a", ALL, ingress=[{"ports": [tcp(100, 102)]}])],
         [(DB, WEB, 99, False), (DB, WEB, 100, True), (DB, WEB, 102, True), (DB, WEB, 103, False)]),
    case("05 no peers is everyone, no rules is nobody",
         [policy("a", app("web"), ingress=[{}], name="everyone"), policy("a", app("db"), ingress=[], name="nobody")],
         [(OUTSIDE, WEB, 1, True), (BARE, WEB, 1, True), (OUTSIDE, DB, 1, False), (WEB, DB, 1, False)]),
    case("06 two selectors in one peer are AND, two peers are OR",
         [policy("a", app("web"), ingress=[{"from": [{"podSelector": app("web"), "namespaceSelector": team("b")}]}], name="and"),
          policy("a", app("db"), ingress=[{"from": [{"podSelector": app("web")}, {"namespaceSelector": team("b")}]}], name="or")],
         [(OTHER_WEB, WEB, 1, True), (BARE, WEB, 1, False), (DB, WEB, 1, False), (WEB, DB, 1, True), (BARE, DB, 1, True)]),
    case("07 podSelector {} is the own namespace, namespaceSelector {} is all",
         [policy("a", app("web"), ingress=[{"from": [{"podSelector": ALL}]}], name="own"),
          policy("a", app("db"), ingress=[{"from": [{"namespaceSelector": ALL}]}], name="all")],
         [(DB, WEB, 1, True), (OTHER_WEB, WEB, 1, False), (OTHER_WEB, DB, 1, True), (BARE, DB, 1, True), (OUTSIDE, DB, 1, False)]),
    case("08 except does not subtract from other rules",
         [policy("a", ALL, ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.2.0/24"]}}]},
                                    {"from": [{"ipBlock": {"cidr": "10.0.2.1/32"}}]}])],
         [(OTHER_WEB, WEB, 1, True), (BARE, WEB, 1, False), ("10.9.9.9", WEB, 1, True)]),
    case("09 ipBlock matches pods", [policy("a", ALL, ingress=[{"from": [{"ipBlock": {"cidr": "10.0.2.0/24"}}]}])],
         [(OTHER_WEB, WEB, 1, True)]),
    case("10 only the directions of policyTypes", [policy("a", app("web"), egress=[])], [(DB, WEB, 1, True), (WEB, DB, 1, False)]),
    case("11 a port without a number is all of its protocol", [policy("a", ALL, ingress=[{"ports": [{"protocol": "UDP"}]}])],
         [(DB, WEB, 1, True, "UDP"), (DB, WEB, 65535, True, "UDP"), (DB, WEB, 1, False)]),
    case("12 both directions must allow",
         [policy("a", app("web"), egress=[{"to": [{"podSelector": app("db")}]}], name="out"),
          policy("a", app("db"), ingress=[], name="in")],
         [(WEB, DB, 5432, False)]),
    case("13 egress is judged on the backend",
         [policy("a", app("db"), egress=[{"to": [{"podSelector": app("web")}], "ports": [tcp(8080)]}])],
         [(DB, WEB, 8080, True), (DB, WEB, 80, False), (DB, "10.96.0.10", 80, False)]),
    case("14 hostNetwork pods are never selected",
         [policy("a", ALL, ingress=[]), policy("b", ALL, ingress=[{"from": [{"namespaceSelector": team("a")}]}])],
         [(DB, WEB, 1, True), (WEB, OTHER_WEB, 1, False), (DB, OTHER_WEB, 1, True)], with_web(hostNetwork=True)),
    case("15 the own node is let in, other nodes and the way out are not", [policy("a", ALL, ingress=[], egress=[])],
         [(NODE, WEB, 8080, True), ("10.0.0.2", WEB, 8080, False), (WEB, NODE, 80, False)]),
    case("16 a finished pod is gone and its address another's",
         [policy("a", ALL, ingress=[]), policy("b", app("web"), ingress=[{"from": [{"podSelector": app("heir")}]}])],
         [(BARE, WEB, 1, True), (WEB, OTHER_WEB, 1, True)],
         with_web(phase="Failed") + [pod("b", "heir", WEB, {"app": "heir"})]),
    case("17 what has no labels matches {}", unlabelled(ALL), [(WEB, BARE, 1, False), (BARE, WEB, 1, True)]),
    case("17 what has no labels matches NotIn",
         unlabelled({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
         [(WEB, BARE, 1, False), (BARE, WEB, 1, True)]),
    case("17 what has no labels matches DoesNotExist", unlabelled({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
         [(WEB, BARE, 1, False), (BARE, WEB, 1, True)]),
    case("18 before a change of a peer's namespace",
         [policy("a", ALL, ingress=[{"from": [{"podSelector": app("web"), "namespaceSelector": team("b")}]}])], [(OTHER_WEB, DB, 1, True)]),
    case("18 after a change of a peer's namespace",
         [policy("a", ALL, ingress=[{"from": [{"podSelector": app("web"), "namespaceSelector": team("b")}]}])], [(OTHER_WEB, DB, 1, False)],
         namespaces={"a": {"team": "a"}, "b": {"team": "c"}}),
    case("19 a flow that lives, before the policy", [], [(OTHER_WEB, DB, 5432, True)]),
    case("19 a flow that lives, after the policy", [policy("a", ALL, ingress=[])], [(OTHER_WEB, DB, 5432, False)]),
    case("20 a pod and itself; families apart; no SCTP by chance",
         [policy("a", ALL, ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"protocol": "TCP"}]}])],
         [(WEB, WEB, 1, True), (OTHER_WEB, WEB, 1, True), ("fd00::2", "fd00::11", 1, False), ("fd00::11", "fd00::11", 1, True),
          (OTHER_WEB, WEB, 1, False, "SCTP")],
         with_web(ips=["fd00::11"])),
]

# What else the others read differently, one by one.
MORE = [
    case("a port name of two containers", [policy("a", app("web"), ingress=[{"ports": [tcp("http")]}])],
         [(DB, WEB, 8080, False), (DB, WEB, 8081, False)], with_web(ports=[("http", 8080, "TCP"), ("http", 8081, "TCP")])),
    case("a label without a value", [policy("a", ALL, ingress=[{"from": [{"podSelector": {"matchLabels": {"canary": ""}}}]}])],
         [(DB, WEB, 1, False)]),
    case("the address of a finished pod", [policy("a", ALL, ingress=[])], [(DB, WEB, 1, True)], with_web(phase="Succeeded")),
]
