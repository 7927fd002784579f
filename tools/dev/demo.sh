#!/bin/bash
# demo                     Redis between two pods, bare and accelerated, under a NetworkPolicy, with the agent killed under load
#
# Wires three pods (network namespaces) through the CNI plugins bridge, host-local, portmap and vsocket-cni, shows everything that
# deploy/demo/demo.py lists, prints a PASS or FAIL line for each claim, and removes all it made. Needs root.
source tools/dev/common.sh
[[ $# == 0 ]] || die "demo takes no arguments"
ensure_packages
configure_and_build release "${product[@]}"
step "demo"
status=0
python3 deploy/demo/demo.py --build build/release || status=$?
[[ $status == 0 ]] && finish demo PASS || finish demo FAIL
exit "$status"
