"""NetworkPolicy v1 said slowly, over the objects as they are written: what the matrix of probes is compared with, beside the agent's own
verdicts. https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/"""

import ipaddress


def matches(selector, labels):
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions") or []:
        key, operator, values = term["key"], term["operator"], term.get("values", [])
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[operator]
        if not holds:
            return False
    return True


def peer_matches(peer, policy_ns, remote, address, namespaces):
    """`remote`: a pod, or None; `address`: of the remote end."""
    if "ipBlock" in peer:
        inside = ipaddress.ip_address(address)
        block = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return inside in block and not any(inside in ipaddress.ip_network(one) for one in peer["ipBlock"].get("except", []))
    if remote is None:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], namespaces[remote.ns]):
            return False
    elif remote.ns != policy_ns:
        return False
    return "podSelector" not in peer or matches(peer["podSelector"], remote.labels)


def port_matches(wanted, destination, port, protocol):
    if wanted.get("protocol", "TCP") != protocol:
        return False
    number = wanted.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        named = destination.ports.get(number) if destination is not None else None
        return named is not None and (named if isinstance(named, tuple) else (named, "TCP")) == (port, protocol)
    return number <= port <= wanted.get("endPort", number)


def allows(policies, direction, pod, remote, address, destination, port, protocol, namespaces):
    """Whether `pod`'s policies let it exchange with the end at `address` (the pod `remote`, or None) in this direction."""
    isolated = False
    for policy in policies:
        spec = policy["spec"]
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        here = policy["metadata"]["namespace"] == pod.ns and matches(spec.get("podSelector") or {}, pod.labels)
        if not here or direction.capitalize() not in types:
            continue
        isolated = True
        for rule in spec.get(direction) or []:
            peers, ports = rule.get("from" if direction == "ingress" else "to") or [], rule.get("ports") or []
            if peers and not any(peer_matches(peer, pod.ns, remote, address, namespaces) for peer in peers):
                continue
            if not ports or any(port_matches(one, destination, port, protocol) for one in ports):
                return True
    return not isolated
