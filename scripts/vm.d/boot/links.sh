# shellcheck shell=bash
# The links of the router that boots. Sourced by prepare and check, never run.
#
# One line a link: the router's interface, its other end in the namespace `servers`, and who makes the interface.
# The N-th line has 192.0.2.N*16+1/28 and 2001:db8:N::1/64 on the router, and +2 and ::2 on its server.
LINKS=(
    'dmz0 far0 nic'           # an emulated NIC, renamed and up since the initramfs
    'br-dmz s-port networkd'  # a bridge
    'bond0 s-member networkd' # a bond
    'trunk.7 s-trunk.7 networkd'
    'trunk.8 s-trunk.8 ifupdown'
    'late0 s-late hand' # `ip link add`, on a router that is up
    'bad0 s-bad nic'    # its policy is refused
    'open0 s-open nic'  # has no gate: the proof that a worm would get out
)
export MAIL_PORT=25 WORM_PORT=445
export TARGET4=198.51.100.9 TARGET6=2001:db8:9::9

# read_link N: sets what there is to know about a link.
read_link() {
    local net=$(($1 * 16))
    read -r INTERFACE FAR MAKER <<<"${LINKS[$1]}"
    export INTERFACE FAR MAKER
    export ROUTER4=192.0.2.$((net + 1)) SERVER4=192.0.2.$((net + 2))
    export ROUTER6=2001:db8:$1::1 SERVER6=2001:db8:$1::2
    export ROUTER_MAC=02:00:00:00:01:0$1 SERVER_MAC=02:00:00:00:02:0$1
}

# list_links [WORD]...: numbers of the links that these words do not name.
list_links() {
    local number name
    for number in "${!LINKS[@]}"; do
        name=${LINKS[$number]%% *}
        [[ " $* " == *" $name "* ]] || echo "$number"
    done
}

in_servers() { nsenter --net=/run/netns/servers -- "$@"; }
in_internet() { nsenter --net=/run/netns/internet -- "$@"; }

# address_server: the far end of a link, as a server has it.
address_server() {
    local metric=$((100 + ${ROUTER_MAC: -1}))
    in_servers ip link set "$FAR" address "$SERVER_MAC"
    in_servers ip address add "$SERVER4/28" dev "$FAR"
    in_servers ip address add "$SERVER6/64" dev "$FAR" nodad
    in_servers ip link set "$FAR" up
    in_servers ip route add default via "$ROUTER4" dev "$FAR" metric "$metric"
}
