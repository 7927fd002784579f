#!/bin/bash
# soak [SECONDS]           stream torture and death tests with fresh seeds, until something fails, Ctrl-C, or SECONDS are over
#
# Each round prints its seed; a failure ends the run and says how to repeat it. Needs root.
source tools/dev/common.sh
limit=${1:-0}
[[ "$limit" =~ ^[0-9]+$ ]] || die "soak takes a number of seconds"
ensure_packages
configure_and_build release
mapfile -t rounds < <(ctest --test-dir build/release -N | sed -n 's/^ *Test *#[0-9]*: //p' | grep -E '^(torture|death|hostile)')
[[ ${#rounds[@]} != 0 ]] || die "the build has no torture, death or hostile tests"
round=0
while [[ $limit == 0 || $((SECONDS - started)) -lt $limit ]]; do
  round=$((round + 1))
  export VSOCKET_TEST_SEED=$((RANDOM * 32768 + RANDOM))
  step "round $round, seed $VSOCKET_TEST_SEED: ${rounds[*]}"
  for name in "${rounds[@]}"; do
    if ! ctest --test-dir build/release --output-on-failure -R "^$name\$" >build/soak.log 2>&1; then
      tail -n 60 build/soak.log
      finish soak "FAILED in round $round: VSOCKET_TEST_SEED=$VSOCKET_TEST_SEED ./dev test $name"
      exit 1
    fi
  done
done
finish soak "$round rounds without a failure"
