#!/bin/bash
# test [--all] [NAME...]   build and run the tests: release, then unit and shim tests under ASan+UBSan and TSan, then fuzzers briefly
#
# NAME runs only the release tests whose name holds it. --all adds the tests labelled `long` (whole suites, hours of torture).
# ctest labels: none = always; root = needs root and network namespaces, run one at a time; long = only with --all.
# The last line says how many passed and failed; the exit status is 0 only when none failed.
source tools/dev/common.sh
source tools/dev/sanitized.sh

all=no
names=()
for argument in "$@"; do
  case "$argument" in
    --all) all=yes ;;
    -*) die "test does not know $argument" ;;
    *) names+=("$argument") ;;
  esac
done

passed=0
failed=0
failures=()

# run_ctest PRESET WHAT CTEST-ARGUMENT...: adds to the counts above.
run_ctest() {
  local preset=$1 what=$2 log="build/test-$1-$2.log"
  shift 2
  step "$what tests, $preset"
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=ignore "$@" 2>&1 | tee "$log" || true
  local line total=0 bad=0
  line=$(grep -E '^[0-9]+% tests passed, [0-9]+ tests? failed out of [0-9]+' "$log" | tail -n 1)
  if [[ "$line" =~ ,\ ([0-9]+)\ tests?\ failed\ out\ of\ ([0-9]+) ]]; then
    bad=${BASH_REMATCH[1]}
    total=${BASH_REMATCH[2]}
  elif ! grep -q 'No tests were found' "$log"; then
    bad=1
    total=1
    failures+=("$preset: ctest itself ($what)")
  fi
  passed=$((passed + total - bad))
  failed=$((failed + bad))
  local name
  while read -r name; do
    failures+=("$preset: $name")
  done < <(sed -n 's/^\t *[0-9]* - \([^ ]*\) (.*/\1/p' "$log")
}

# run_as_root PRESET LABEL: the tests of that label, which need root; without it they count as failed.
run_as_root() {
  if [[ $(id -u) == 0 ]]; then
    run_ctest "$1" "$2" -L "^$2\$" "${long[@]}"
    return
  fi
  echo "./dev test: not root, so the tests labelled $2 are counted as failed"
  failed=$((failed + $(ctest --test-dir "build/$1" -N -L "^$2\$" "${long[@]}" | grep -c '^ *Test ')))
  failures+=("$1: everything labelled $2 (this is not root)")
}

ensure_packages
configure_and_build release
long=(-LE '^long$')
[[ $all == no ]] || long=()

if [[ ${#names[@]} != 0 ]]; then
  pattern=$(IFS='|'; echo "${names[*]}")
  # A test asked for by name runs whatever its label.
  run_ctest release named -R "$pattern"
  [[ $((passed + failed)) != 0 ]] || die "no test is named $pattern; ctest --test-dir build/release -N lists them"
else
  run_ctest release unit -j "$(nproc)" -LE "$([[ $all == no ]] && echo '^(root|long)$' || echo '^root$')"
  run_as_root release root
  for preset in asan tsan; do
    mapfile -t targets < <(sanitized_tests "$preset")
    [[ ${#targets[@]} != 0 ]] || continue
    configure_and_build "$preset" "${targets[@]}" "${shim_targets[@]}"
    pattern="^($(IFS='|'; echo "${targets[*]}"))\$"
    run_ctest "$preset" sanitized -j "$(nproc)" -R "$pattern" "${long[@]}"
    run_as_root "$preset" shim
  done
  step "fuzzers, 5 s each"
  bash tools/dev/fuzz.sh "$([[ $all == no ]] && echo 5 || echo 120)" | tee build/test-fuzz.log || true
  if [[ "$(tail -n 1 build/test-fuzz.log)" =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    [[ ${BASH_REMATCH[2]} == 0 ]] || failures+=("fuzz: see build/fuzz/*.log")
  else
    failed=$((failed + 1))
    failures+=("fuzz: could not be built or run")
  fi
fi

if [[ ${#failures[@]} != 0 ]]; then
  printf '\nfailed:\n'
  printf '  %s\n' "${failures[@]}"
fi
finish test "$([[ $failed == 0 ]] && echo PASS || echo FAIL)"
echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
