# shellcheck shell=bash
# The stages of integration/test: runs each with its duration, goes on after a failure, and closes with the true sums.
# A stage is a command; what it prints is shown and kept in $LOGS/NAME.log. Needs: say.sh, $LOGS.

TESTS_PASSED=0 TESTS_FAILED=0 TESTS_SKIPPED=0
STAGE_LINES=()

# stage NAME COMMAND...: a command that passes or fails as a whole; only its failure is counted.
stage() {
  local name=$1 started=$SECONDS result=ok; shift
  say "$name"
  run_logged "$name" "$@" || { result=FAILED; TESTS_FAILED=$((TESTS_FAILED + 1)); }
  note_stage "$name" "$result" "$started"
  [ "$result" = ok ]
}

# stage_of_tests NAME COMMAND...: a command that prints cargo's `test result:` lines, which are summed. When it fails and
# none of its tests did (it did not build, or it died), that counts as one failure.
stage_of_tests() {
  local name=$1 started=$SECONDS result=ok failed_before=$TESTS_FAILED; shift
  say "$name"
  run_logged "$name" "$@" || result=FAILED
  sum_results "$LOGS/$name.log"
  if [ "$result" = FAILED ] && [ "$TESTS_FAILED" = "$failed_before" ]; then TESTS_FAILED=$((TESTS_FAILED + 1)); fi
  note_stage "$name" "$result" "$started"
}

run_logged() {
  local name=$1; shift
  "$@" 2>&1 | tee "$LOGS/$name.log"
  return "${PIPESTATUS[0]}"
}

note_stage() { STAGE_LINES+=("$(printf '%-24s %-7s %5d s' "$1" "$2" $((SECONDS - $3)))"); }

# Adds up lines like `test result: ok. 12 passed; 0 failed; 1 ignored; …`; an ignored test is a skipped one. So is one that says
# `skipped: NAME: REASON`, which cargo takes for passed.
sum_results() {
  local passed failed skipped
  skipped=$(grep -c '^skipped: [a-z0-9_:]*: ' "$1") || :
  TESTS_PASSED=$((TESTS_PASSED - skipped)) TESTS_SKIPPED=$((TESTS_SKIPPED + skipped))
  while read -r passed failed skipped; do
    TESTS_PASSED=$((TESTS_PASSED + passed)) TESTS_FAILED=$((TESTS_FAILED + failed)) TESTS_SKIPPED=$((TESTS_SKIPPED + skipped))
  done < <(sed -nE 's/^test result: [A-Za-z]+\. ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored.*/\1 \2 \3/p' "$1")
}

# Prints the table and the closing line; succeeds when nothing failed and something passed.
close_stages() {
  say "stages"
  printf '    %s\n' "${STAGE_LINES[@]}"
  local skipped=''
  [ "$TESTS_SKIPPED" = 0 ] || skipped=", $TESTS_SKIPPED skipped"
  printf '%d passed, %d failed%s\n' "$TESTS_PASSED" "$TESTS_FAILED" "$skipped"
  [ "$TESTS_FAILED" = 0 ] && [ "$TESTS_PASSED" -gt 0 ]
}
