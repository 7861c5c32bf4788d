# shellcheck shell=bash
# Runs tests by name. Sourced after say.sh and cargo.sh, never run; ROOT is the checkout.

# As .cargo/config.toml has it for `cargo test`: a snapshot that differs is red, and is not written.
export INSTA_UPDATE=${INSTA_UPDATE:-no} INSTA_FORCE_PASS=0

# A gate has about a hundred descriptors, and each thread of the tests keeps several. Many machines start with
# 1024; a user who may not raise that far gets as many as there are.
raise_open_files() {
    local hard
    hard=$(ulimit -Hn)
    if ((EUID == 0)) || [[ $hard == unlimited ]] || ((hard > 16384)); then hard=16384; fi
    ulimit -Sn "$hard" 2>/dev/null || ulimit -n "$hard"
}
raise_open_files

# list_tests BINARY PREFIXES [FILTER]...: names that begin with one of the prefixes (words; none: any)
# and contain one of the filters (none: any).
list_tests() {
    local binary=$1 prefixes=$2
    shift 2
    "$binary" --list --format terse 2>/dev/null | sed -n 's/: test$//p' | awk -v prefixes="$prefixes" -v filters="$*" '
        function picks(list, anywhere,    words, count, at, place) {
            count = split(list, words, " ")
            for (at = 1; at <= count; at++) {
                place = index($0, words[at])
                if (anywhere ? place > 0 : place == 1) return 1
            }
            return count == 0
        }
        picks(prefixes, 0) && picks(filters, 1)'
}

# run_tests BINARY OPTIONS NAME...: these and no other, with options (words) for the test harness. One that
# is ignored or does not run is red.
run_tests() {
    local binary=$1 options status=0 output
    read -ra options <<<"$2"
    shift 2
    output=$(mktemp)
    (cd "$ROOT" && "$binary" "${options[@]}" --exact "$@" 2>&1) | tee "$output" || status=1
    grep -qE "^test result: ok\. $# passed; 0 failed; 0 ignored" "$output" || {
        echo "error: not all of $# tests passed" >&2
        status=1
    }
    rm -f "$output"
    return "$status"
}

# run_suite PATTERN PREFIXES [FILTER]...: builds the tests as the user, and runs those of the binaries whose
# line of cargo's list matches; the prefixes are of names in tests/suite. None at all is red.
run_suite() {
    local binaries binary names prefixes ran=0
    binaries=$(print_test_binaries "$1") || return 1
    for binary in $binaries; do
        prefixes=$2
        [[ ${binary##*/} == suite-* ]] || prefixes=''
        mapfile -t names < <(list_tests "$binary" "$prefixes" "${@:3}")
        ((${#names[@]} > 0)) || continue
        run_tests "$binary" '' "${names[@]}" || return 1
        ran=1
    done
    ((ran == 1)) || {
        echo "error: no test of ${2:-the binaries}${3:+ is called ${*:3}}" >&2
        return 1
    }
}
