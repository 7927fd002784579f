"""Which part may include which (docs/architecture.md, "Dependencies point one way")."""

import os
import re

from tree import Finding

CONCERNS = ("kube", "policy", "enforce", "broker", "transport", "telemetry", "rpc", "peer", "csi")

# area -> areas whose headers it may include. An area may always include itself.
ALLOWED = {
    "base": set(),
    "channel": {"base"},
    "shim": {"channel", "base"},
    "proto": set(),
    "node-agent/model": {"channel", "base"},
    "cni-plugin": {"proto", "base"},
    "cli": {"proto", "base"},
    "injector": {"base"},
    **{f"node-agent/{concern}": {"node-agent/model", "channel", "base"} for concern in CONCERNS},
}
for concern in ("rpc", "peer", "csi"):
    ALLOWED[f"node-agent/{concern}"].add("proto")

SEES_PROTOBUF = {"node-agent/rpc", "node-agent/peer", "node-agent/csi", "cni-plugin", "cli"}
GENERATED = re.compile(r"\.(grpc\.)?pb\.h$|^(grpc|grpcpp|google/protobuf)/|^google/rpc/")
INFINIBAND = re.compile(r"^(infiniband|rdma)/")

# Runs inside somebody else's process: nothing but the C and C++ headers of the system.
FREESTANDING = {"base", "channel", "shim"}
THIRD_PARTY = re.compile(r"^(grpc|grpcpp|google|nlohmann|yaml-cpp|spdlog|fmt|CLI|prometheus|absl|libmnl|nftables|openssl)/")


def area_of(path):
    parts = path.split("/")
    if parts[0] == "node-agent":
        return "/".join(parts[:2]) if len(parts) > 2 else "node-agent"
    return parts[0]


def check(tree):
    for file in tree.code():
        area = area_of(file.path)
        if area in ("test", "bench"):
            continue
        yield from _check_file(tree, file, area)


def _check_file(tree, file, area):
    for number, kind, target in file.includes:
        where = f"{file.path}:{number}"
        if GENERATED.search(target) and area not in SEES_PROTOBUF and area != "proto":
            yield Finding(where, f"only {', '.join(sorted(SEES_PROTOBUF))} see protobuf and gRPC headers, not {area}: {target}")
        if INFINIBAND.search(target) and not file.path.startswith("node-agent/transport/verbs"):
            yield Finding(where, f"only node-agent/transport/verbs* sees verbs: {target}")
        if area in FREESTANDING and not file.is_test and THIRD_PARTY.search(target):
            yield Finding(where, f"{area} runs inside other people's programs and takes nothing from third parties: {target}")
        if kind == "<" or GENERATED.search(target):
            continue
        if target not in tree.files and tree.build:
            if not os.path.exists(os.path.join(tree.build, target)):
                yield Finding(where, f'quoted includes are paths from the repository root; there is no "{target}"')
        target_area = area_of(target)
        if target_area == "test" and file.is_test:
            continue
        if area == "node-agent" or target_area == area:
            continue  # main.cc and what it is made of wires everything
        allowed = ALLOWED.get(area, set())
        if target_area not in allowed:
            yield Finding(where, f"{area} may include {', '.join(sorted(allowed)) or 'nothing'}, not {target_area}: {target}")
