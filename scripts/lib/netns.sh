# shellcheck shell=bash
# Machines made of network namespaces. Sourced after say.sh, never run.
#
# NETNS_PREFIX, set by who sources this, begins the name of every namespace: what does not carry
# it is never touched. Processes are found by the namespace they live in and ended by their pids.

# in_namespace NAME COMMAND...: not `ip netns exec`, which mounts a /sys of its own over the
# machine's and so hides the pins in /sys/fs/bpf.
in_namespace() {
    nsenter --net="/run/netns/$NETNS_PREFIX$1" -- "${@:2}"
}

list_namespaces() {
    command -v ip >/dev/null || return 0 # not installed yet: there can't be any
    ip netns list 2>/dev/null | awk -v prefix="$NETNS_PREFIX" 'index($1, prefix) == 1 { print $1 }'
}

add_namespace() {
    ip netns add "$NETNS_PREFIX$1"
    ip -n "$NETNS_PREFIX$1" link set lo up
}

# join_namespaces NAME IF NAME IF: a cable. Both ends are born inside, so that the real machine's
# network managers never see them.
join_namespaces() {
    ip link add "$2" netns "$NETNS_PREFIX$1" type veth peer name "$4" netns "$NETNS_PREFIX$3"
    ip -n "$NETNS_PREFIX$1" link set "$2" up
    ip -n "$NETNS_PREFIX$3" link set "$4" up
}

# set_sysctl NAME KEY VALUE: below /proc/sys/net, which shows the reader's namespace.
set_sysctl() {
    # shellcheck disable=SC2016 # expanded by the inner shell, in the namespace
    in_namespace "$1" sh -c 'echo "$2" >"/proc/sys/net/$1"' - "$2" "$3"
}

# add_address NAME IF ADDRESS...: without duplicate address detection, which would hold up IPv6.
add_address() {
    local address
    for address in "${@:3}"; do
        case $address in
        *:*) ip -n "$NETNS_PREFIX$1" -6 address add "$address" dev "$2" nodad ;;
        *) ip -n "$NETNS_PREFIX$1" address add "$address" dev "$2" ;;
        esac
    done
}

# start_in NAME LOG COMMAND...: a background process, in a session of its own so that Ctrl-C goes
# to the script alone and kill_group reaches the children. STARTED is its pid.
start_in() {
    local name=$1 log=$2
    shift 2
    # The lock must not outlive the script in a child: it tells a live run from a dead one.
    nsenter --net="/run/netns/$NETNS_PREFIX$name" -- setsid "$@" \
        </dev/null >>"$log" 2>&1 {LOCK_FD}>&- &
    STARTED=$!
    disown "$STARTED"
}

# kill_group PID...: what start_in started, with its children.
kill_group() {
    local pid
    for pid; do
        kill -TERM -- "-$pid" 2>/dev/null || true
    done
    for pid; do
        wait_until 10 is_group_gone "$pid" || kill -KILL -- "-$pid" 2>/dev/null || true
    done
}

is_group_gone() { ! kill -0 -- "-$1" 2>/dev/null; }

# stop_machine NAME: ends every process in the namespace. They are ours: nothing runs in there but
# what we have started, and what someone has who entered by hand.
stop_machine() {
    signal_processes "$1" TERM
    wait_until 10 are_processes_gone "$1" && return
    signal_processes "$1" KILL
    wait_until 10 are_processes_gone "$1"
}

signal_processes() {
    local pid
    for pid in $(list_processes "$1"); do
        kill "-$2" "$pid" 2>/dev/null || true
    done
}

list_processes() { ip netns pids "$NETNS_PREFIX$1" 2>/dev/null || true; }

are_processes_gone() { [[ -z $(list_processes "$1") ]]; }

# delete_namespaces: all that begin with our prefix, a killed run's as well.
delete_namespaces() {
    local name
    for name in $(list_namespaces); do
        signal_processes "${name#"$NETNS_PREFIX"}" TERM # all at once; then wait for each
    done
    for name in $(list_namespaces); do
        stop_machine "${name#"$NETNS_PREFIX"}" || true
        ip netns delete "$name"
    done
}

# is_listening NAME tcp|udp PORT
is_listening() {
    [[ -n $(in_namespace "$1" ss -Hln "--$2" "sport = :$3") ]]
}
