# SPDX-License-Identifier: GPL-2.0
# Sourced by what runs checks and tests: run them one after the other, count, and end with "N passed, N failed".

passed=0 failed=0
top=$(dirname "$(dirname "$(readlink -f "$0")")")
cd "$top" || exit 1
export CARGO_TARGET_DIR="$top/build/cargo" CARGO_TERM_COLOR=never
toolbox="$top/scripts/toolbox run --"

# count COMMAND…: a command that counts as one check.
count() {
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# suite NAME COMMAND…: a command that names its tests in lines that end with "... ok", "... FAILED" and the like,
# shown as they come, as are the steps of a lab's boot, and sums them up, once or more, as "N passed, N failed" ("N passed; N failed").
suite() {
    suite_name=$1 suite_log=$top/build/logs/$1.log
    shift
    mkdir -p "$top/build/logs"
    rm -f "$suite_log.status"
    { "$@" 2>&1 || echo $? >"$suite_log.status"; } | tee "$suite_log" |
        sed -u -n -E "s/^(test )?(.* \.\.\. .*)/  $suite_name: \2/p; s/^lab: /  &/p"
    set -- $(sed -n -E 's/^(.*[^0-9])?([0-9]+) passed[;,] ([0-9]+) failed.*/\2 \3/p' "$suite_log" |
        awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0 }')
    [ ! -e "$suite_log.status" ] || [ "$2" -gt 0 ] || set -- "$1" 1
    passed=$((passed + $1)) failed=$((failed + $2))
    [ "$2" = 0 ] || {
        echo "  $suite_name: $2 failed; from $suite_log:"
        # What cargo says of each failed test, or what there is.
        if grep -q '^failures:' "$suite_log"; then sed -n '/^failures:/,/^test result/p' "$suite_log"; else cat "$suite_log"; fi |
            tail -n 60
    }
}

# The last line, and the exit status.
finish() {
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}
