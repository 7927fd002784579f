#!/bin/bash
# bench [--peers] [ROW...] measure against kernel TCP on the same path, bare and vsocket alternating; bench/README.md says how
#
# `bench policy` measures what policies cost the agent instead: compiling, memory, and one change, by the number of pods.
# --peers adds Redis over a UNIX socket and over a BPF sockmap redirect. --list names the rows. --quick: short runs, for trying it out.
# Tables and JSON land in build/bench/. Needs root.
source tools/dev/common.sh
ensure_packages
if [[ "${1:-}" == policy ]]; then
  configure_and_build release policy_bench
  python3 bench/policy.py --build build/release --out build/bench && status=0 || status=$?
  [[ $status == 0 ]] && finish bench "done, results in build/bench/policy.md" || finish bench "FAILED"
  exit "$status"
fi
configure_and_build release "${product[@]}"
step "bench"
status=0
python3 bench/bench.py --build build/release --out build/bench "$@" || status=$?
[[ $status == 0 ]] && finish bench "done, results in build/bench/" || finish bench "FAILED"
exit "$status"
