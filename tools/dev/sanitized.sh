# Which tests are built and run again under a sanitizer. Sourced.
#
# First, tests that are one program (sanitized_tests). Then, labelled `shim`, those that run programs of ours with a sanitized libvsocket.so
# against the release build's agent: torture, death, the hostile peer, lifecycle, epoll. A report of any process fails them
# (test/lib/sanitizer.py).
#
# ASan+UBSan: every test that is a program. TSan: only what has threads or shared memory of its own, as shell patterns on ctest names; gRPC
# and protobuf come from Debian uninstrumented, so TSan would report their innards.
tsan_patterns=('base_*' 'channel_*' 'shim_*' 'broker_*' 'transport_*' 'torture*' 'kube_event_*' 'peer_event_*' 'policy_concurrency_test')

# What the tests labelled `shim` need to be built.
# shellcheck disable=SC2034  # used by test.sh
shim_targets=(vsocket faulty torture death honest lifecycle_test epoll_edges_test)

matches() {
  local name=$1 pattern
  shift
  for pattern in "$@"; do
    # shellcheck disable=SC2053  # a pattern on purpose
    [[ "$name" == $pattern ]] && return 0
  done
  return 1
}

# sanitized_tests PRESET: the ctest names, which are also the targets' names; from the configured release tree.
sanitized_tests() {
  local name
  while read -r name; do
    # Only tests that are a program of their own can be rebuilt.
    [[ -x "build/release/bin/$name" ]] || continue
    case "$1" in
      asan) echo "$name" ;;
      tsan) ! matches "$name" "${tsan_patterns[@]}" || echo "$name" ;;
    esac
  done < <(ctest --test-dir build/release -N | sed -n 's/^ *Test *#[0-9]*: //p')
}
