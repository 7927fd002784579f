#!/bin/bash
# lint [--all]             clang-format and clang-tidy on the files changed since main's last commit (--all: on every file)
#
# Changed means: differs from HEAD, or is new. Both tools only report; `clang-format -i FILE` repairs layout.
source tools/dev/common.sh
all=no
case "${1:-}" in
  "") ;;
  --all) all=yes ;;
  *) die "lint takes only --all" ;;
esac
ensure_packages
sources() { grep -E '\.(h|cc|c)$' | while read -r file; do [[ ! -e "$file" ]] || echo "$file"; done; }
if [[ $all == yes ]]; then
  mapfile -t files < <(git ls-files --cached --others --exclude-standard | sources)
else
  mapfile -t files < <({ git diff --name-only HEAD; git ls-files --others --exclude-standard; } | sort -u | sources)
fi
if [[ ${#files[@]} == 0 ]]; then
  finish lint "no changed sources"
  exit 0
fi
step "clang-format on ${#files[@]} files"
bad=0
clang-format --dry-run --Werror "${files[@]}" 2>&1 | grep -E 'error:' | sort -u -t: -k1,1 || true
for file in "${files[@]}"; do
  clang-format --dry-run --Werror "$file" >/dev/null 2>&1 || bad=$((bad + 1))
done
configure_and_build debug
mapfile -t units < <(printf '%s\n' "${files[@]}" | grep -E '\.(cc|c)$' | while read -r file; do
  grep -qF "/$file\"" build/debug/compile_commands.json && echo "$file"
done)
tidy_bad=0
if [[ ${#units[@]} != 0 ]]; then
  step "clang-tidy on ${#units[@]} translation units"
  printf '%s\n' "${units[@]}" | xargs -P "$(nproc)" -n 1 clang-tidy -p build/debug --quiet 2>build/lint.log || tidy_bad=1
fi
if [[ $bad != 0 || $tidy_bad != 0 ]]; then
  finish lint "FAILED: $bad files with another layout, clang-tidy $([[ $tidy_bad == 0 ]] && echo clean || echo 'found something')"
  exit 1
fi
finish lint "${#files[@]} files clean"
