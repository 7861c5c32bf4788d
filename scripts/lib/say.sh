# shellcheck shell=bash
# Output for a person, and waiting for conditions. Sourced, never run.

TICK=ok CROSS=FAILED DOT=-
case ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} in
*[Uu][Tt][Ff]8* | *[Uu][Tt][Ff]-8*) TICK=✓ CROSS=✗ DOT=· ;;
esac
BOLD='' RED='' GREEN='' PLAIN=''
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
fi

# How many checks did not hold; the exit status comes from it.
FAILED_CHECKS=0

say_step() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
say_ok() { printf '  %s%s%s %s\n' "$GREEN" "$TICK" "$PLAIN" "$*"; }
say_note() { printf '  %s %s\n' "$DOT" "$*"; }
say_bad() {
    printf '  %s%s%s %s\n' "$RED" "$CROSS" "$PLAIN" "$*"
    FAILED_CHECKS=$((FAILED_CHECKS + 1))
}

# die MESSAGE [REMEDY]: ends the run.
die() {
    printf '%serror:%s %s\n' "$RED" "$PLAIN" "$1" >&2
    [[ -z ${2:-} ]] || printf 'help: %s\n' "$2" >&2
    exit 1
}

# wait_until SECONDS COMMAND...: succeeds as soon as COMMAND does, fails when SECONDS are over. Deadlines
# are for an emulated machine that is twenty times slower; they cost nothing where all is well.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}
