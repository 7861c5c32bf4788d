# shellcheck shell=bash
# The gate: its policy, attaching and detaching it, and its reports. Sourced by scripts/demo.

# The gate of a namespace has the namespace's number in its name, so no gate of the machine is touched.
PINS=/sys/fs/bpf/portcullis
GATE_PID=''
BAD_ROWS=0

attach_gate() {
    write_policy "$FOLDER/policy.toml"
    check "the policy is a starter of \`portcullis init\` with our addresses, and valid" \
        "$PORTCULLIS" check "$FOLDER/policy.toml"
    # Before the gate is attached, so that the captures also have the permitted traffic. This proves that they
    # work even if they have no packet of the attack.
    start_captures gate
    echo "$PORTCULLIS" >"$STATE/gate"
    start_in router "$LOGS/gate.log" "$PORTCULLIS" run -i dmz0 -p "$FOLDER/policy.toml"
    GATE_PID=$STARTED
    wait_until 60 is_enforcing || {
        tail -n 10 "$LOGS/gate.log" >&2
        die "the gate is not attached" "the whole output is in $LOGS/gate.log"
    }
    say_ok "enforcing on dmz0: $(ask_gate status | jq -r '"\(.attached) XDP, \(.tracking) tracking, \(.servers) servers"')"
}

# write_policy FILE: the starter policy up to its servers, with the sets of the demo, then its servers.
write_policy() {
    "$PORTCULLIS" init | sed -E \
        -e '/^\[servers\./,$d' \
        -e "s,^(bastion +=).*,\1 [\"$BASTION4\"\, \"$BASTION6\"]," \
        -e "s,^(loghosts +=).*,\1 [\"$LOGHOST4\"]," \
        -e "s,^(ntp +=).*,\1 [\"$LOGHOST4\"]," >"$1"
    cat >>"$1" <<TOML
[servers.web1]
addresses = ["$WEB4", "$WEB6"]
mac = "02:00:00:00:00:80"
roles = ["web", "managed"]

[servers.mx1]
addresses = ["$MAIL4", "$MAIL6"]
mac = "02:00:00:00:00:25"
roles = ["mail", "managed"]

[servers.ns1]
addresses = ["$DNS4", "$DNS6"]
mac = "02:00:00:00:00:53"
roles = ["dns", "managed"]

[alarms]
eve = "$FOLDER/eve.json"
TOML
}

ask_gate() { in_namespace router "$PORTCULLIS" show -i dmz0 "$1" -j; }

is_enforcing() {
    ask_gate status 2>/dev/null | jq -e '.attached != "no" and .enforcing' >/dev/null
}

# check_nothing_dropped: apart from noise that is neither permitted nor an attack.
check_nothing_dropped() {
    check "nothing of this was dropped, and there is no alarm" is_calm
}

is_calm() {
    ask_gate drops | tee /dev/stderr |
        jq -e '[.[] | select(.reason != "backscatter" and .reason != "stranger") | .packets] | add // 0 | . == 0' &&
        [[ $(count_alerts) == 0 ]]
}

count_alerts() { list_alerts | wc -l; }

list_alerts() { # one compact JSON object a line
    jq -c 'select(.event_type == "alert")' "$FOLDER/eve.json" 2>/dev/null || true
}

attack_with_gate() {
    local answers
    forget_successes
    infect_web gate 120 is_everything_alarmed
    wait_until 20 do_counts_agree || true # the table shows it
    answers=$(count_answers)
    check "the web server goes on serving its visitors" visit "http://$WEB4/"
    # Packets keep their order: after this answer, everything that left before it has arrived too.
    wait_until 20 has_answered_since "$answers" || say_bad "the capture beyond the router does not work"
    stop_captures gate
    check "no host answered the worm" is_failure worm
    check "no rootkit was fetched, and no shell called home" is_failure '[fts]'
    check "the bind shell is out of reach" is_outside
    check "the internet got $(count_answers) packets from the web server, all of them answers" \
        has_nothing_but_answers
}

is_failure() { (($(count_successes "$1") == 0)); }
is_outside() { ! is_inside gate; }

# count_answers: of the web server to its visitors, as seen in the internet.
count_answers() { count_packets "$FOLDER/left-gate.pcap" "$FROM_WEB and (tcp src port 80 or tcp src port 443)"; }
has_answered_since() { (($(count_answers) > $1)); }
has_nothing_but_answers() {
    (($(count_answers) > 0)) &&
        (($(count_packets "$FOLDER/left-gate.pcap" "$FROM_WEB and not (tcp src port 80 or tcp src port 443)") == 0))
}

# count_drops PROTOCOL PORT: of the web server, in the kernel's ledger.
count_drops() {
    ask_gate drops | jq --arg proto "$1" --argjson port "$2" \
        '[.[] | select(.server == "web1" and .proto == $proto and .port == $port) | .packets] | add // 0'
}

# do_counts_agree: the ledger has every packet of the attack that the server sent.
do_counts_agree() {
    local row filter service
    for row in "${ROWS[@]}"; do
        IFS='|' read -r _ filter service _ <<<"$row"
        # shellcheck disable=SC2086 # protocol and port
        (($(count_tried gate "$filter") == $(count_drops $service))) || return 1
    done
}

count_tried() { count_packets "$FOLDER/tried-$1.pcap" "$FROM_WEB and $2"; }
count_left() { count_packets "$FOLDER/left-$1.pcap" "$FROM_WEB and $2"; }

# list_alarms: of the web server, each service with the kind that its part of the alarm has by now.
list_alarms() {
    list_alerts | jq -rs '[.[].portcullis | select(.server == "web1") | .parts[]] | group_by(.service)[] | last
        | "\(.service) \(.kind)"'
}

# name_alarm PROTOCOL/PORT
name_alarm() { list_alarms | awk -v service="$1" '$1 == service { kind = $2 } END { print kind ? kind : "none" }'; }

is_everything_alarmed() {
    local row service kind alarms
    alarms=$(list_alarms)
    for row in "${ROWS[@]}"; do
        IFS='|' read -r _ _ service kind <<<"$row"
        grep -qx "${service/ //} $kind" <<<"$alarms" || return 1
    done
}

# print_alarms: the last line of each alarm that says what to do, as the daemon wrote it. Lines with `updated`
# only add counts, which the table has.
print_alarms() {
    awk '/ updated: / { next }
        match($0, /alarm #[0-9]+/) {
            id = substr($0, RSTART, RLENGTH)
            if (!(id in last)) order[++count] = id
            last[id] = substr($0, RSTART)
        }
        END { for (i = 1; i <= count; i++) print last[order[i]] }' "$LOGS/gate.log" |
        while read -r line; do
            fold -s -w 92 <<<"$line" | sed -e '1s/^/  /' -e '2,$s/^/      /' -e 's/ *$//'
        done
}

# Packets of the web server: tried on its wire, left beyond the router, dropped in the ledger.
print_table() {
    local row name filter service kind
    printf '\n  %-28s %17s %29s\n' '' 'without the gate' 'with the gate'
    printf '  %-28s %9s %7s %10s %7s %10s  %s\n' 'packets' tried left tried left dropped alarm
    for row in "${ROWS[@]}"; do
        IFS='|' read -r name filter service kind <<<"$row"
        # shellcheck disable=SC2086 # protocol and port
        print_row "$name" "$kind" "$(count_tried open "$filter")" "$(count_left open "$filter")" \
            "$(count_tried gate "$filter")" "$(count_left gate "$filter")" \
            "$(count_drops $service)" "$(name_alarm "${service/ //}")"
    done
    printf '\n'
    ((BAD_ROWS == 0)) || say_bad "$BAD_ROWS rows are wrong"
}

# print_row NAME KIND TRIED-OPEN LEFT-OPEN TRIED LEFT DROPPED ALARM: a row is right if all packets left
# without the gate, none left with it, the ledger has all of them, and the alarm is there.
print_row() {
    local mark=$GREEN
    if (($3 == 0 || $4 != $3 || $5 == 0 || $6 != 0 || $7 != $5)) || [[ $8 != "$2" ]]; then
        mark=$RED
        BAD_ROWS=$((BAD_ROWS + 1))
    fi
    printf '  %-28s %9s %7s %10s %s%7s%s %10s  %s\n' "$1" "$3" "$4" "$5" "$mark" "$6" "$PLAIN" "$7" "$8"
}

check_detach() {
    kill_group "$GATE_PID"
    check "the gate outlives its daemon" is_enforcing
    check "the gate is detached, and nothing is left of it" detach_gate
}

# detach_gate: of this run, or of one that was killed. Safe at any time.
detach_gate() {
    [[ -e $STATE/gate ]] || return 0
    local program inode
    program=$(cat "$STATE/gate")
    if inode=$(stat -L -c %i "/run/netns/${NETNS_PREFIX}router" 2>/dev/null); then
        stop_machine router
        in_namespace router "$program" detach -i dmz0 2>&1
        rm -rf "/run/portcullis/dmz0::$inode".* "/var/lib/portcullis/dmz0::$inode"
        # The gate's folder has the namespace's number in its name, so it is the demo's own.
        [[ ! -e $PINS/dmz0::$inode ]] || { rm -rf "$PINS/dmz0::$inode" && return 1; }
    fi
    rm -f "$STATE/gate"
}
