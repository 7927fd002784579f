#!/bin/bash
# fuzz [TARGET] [SECONDS]  run one fuzz target, or all, each for SECONDS (default 60), from the seeds in test/corpus/
#
# Targets are the programs named *_fuzz of the fuzz preset (clang, libFuzzer, ASan). What is found lands in build/fuzz/findings/.
source tools/dev/common.sh
target=
seconds=60
for argument in "$@"; do
  if [[ "$argument" =~ ^[0-9]+$ ]]; then seconds=$argument; else target=${argument%_fuzz}_fuzz; fi
done
ensure_packages
configure fuzz
ninja -C build/fuzz build.ninja >build/fuzz.configure.log || die "cmake failed; see build/fuzz.configure.log"  # a new target is seen
# CMake's own order-only targets end in the same name; no program of ours begins with "cmake_".
mapfile -t targets < <(ninja -C build/fuzz -t targets all |
  sed -n '/^cmake_/d; s/^\([A-Za-z0-9_]*_fuzz\): phony$/\1/p' | sort -u)
if [[ -n "$target" ]]; then
  [[ " ${targets[*]} " == *" $target "* ]] || die "no fuzz target '$target'; there are: ${targets[*]}"
  targets=("$target")
fi
[[ ${#targets[@]} != 0 ]] || die "the fuzz preset has no target named *_fuzz"
configure_and_build fuzz "${targets[@]}"
mkdir -p build/fuzz/findings
passed=0
failed=0
for name in "${targets[@]}"; do
  binary=$(find build/fuzz -type f -executable -name "$name" -print -quit)
  work=build/fuzz/corpus/$name
  mkdir -p "$work"
  seeds=()
  for folder in "test/corpus/$name" "test/corpus/${name%_fuzz}"; do
    [[ ! -d "$folder" ]] || seeds+=("$folder")
  done
  step "$name for $seconds s, seeds: ${seeds[*]:-none}"
  log=build/fuzz/$name.log
  if "$binary" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix=build/fuzz/findings/"$name"- "$work" "${seeds[@]}" >"$log" 2>&1; then
    sed -n 's/^stat::number_of_executed_units: */  executed: /p' "$log"
    passed=$((passed + 1))
  else
    tail -n 40 "$log"
    failed=$((failed + 1))
  fi
done
finish fuzz "$passed targets clean, $failed with findings"
echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
