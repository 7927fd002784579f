#!/bin/bash
# vm up|run|down|...       two virtual machines with software RDMA, the tree's build inside, and faults for them; alone: all its verbs
#
# `./dev vm up` starts both in seconds, `./dev vm run a COMMAND` runs in one of them, `./dev vm down` leaves nothing.
# Stock Debian kernel under qemu, in software: no hardware or KVM is needed. Needs root.
source tools/dev/common.sh
case "${1:-help}" in
  up)
    ensure_packages
    configure_and_build release "${product[@]}"
    ;;&
  help) exec python3 test/vm/vm.py help ;;
  run | status) exec python3 test/vm/vm.py "$@" ;;
esac
status=0
python3 test/vm/vm.py "$@" || status=$?
[[ $status == 0 ]] && finish vm "$1" || finish vm "$1 FAILED"
exit "$status"
