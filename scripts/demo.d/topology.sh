# shellcheck shell=bash disable=SC2034 # the addresses are read by the other pieces
# The networks of the demo. Sourced by scripts/demo.
#
#   inet ----- inet0 router dmz0 ----- switch ----- web, mail, dns
#                      |  |
#            bastion --+  +-- loghost
#
# All addresses are reserved for documentation. The DMZ is a bridge, as behind a real router: packets between
# two servers never cross the gate. `inet` answers on every address of 198.51.100.0/24 and
# 2001:db8:2::/64. It has no way out, so every packet that leaves the DMZ ends there.

WEB4=192.0.2.80 WEB6=2001:db8:1::80
MAIL4=192.0.2.25 MAIL6=2001:db8:1::25
DNS4=192.0.2.53 DNS6=2001:db8:1::53
DMZ4=192.0.2.0/24 DMZ6=2001:db8:1::/64
BASTION4=203.0.113.7 BASTION6=2001:db8:f::7
LOGHOST4=203.0.113.70 LOGHOST6=2001:db8:e::70 # also the time server
INET4=198.51.100.0/24 INET6=2001:db8:2::/64
VISITOR4=198.51.100.9 VISITOR6=2001:db8:2::9
PEER_DNS4=198.51.100.53
PEER_MAIL4=198.51.100.25
ATTACKER4=198.51.100.66

MACHINES=(inet router switch web mail dns bastion loghost)

# On a machine booted with ipv6.disable=1, the demo runs its IPv4 half.
has_ipv6() { [[ -e /proc/sys/net/ipv6 ]]; }

build_topology() {
    local name
    for name in "${MACHINES[@]}"; do
        add_namespace "$name"
    done
    make_router
    make_switch
    connect_server web 80 "$WEB4" "$WEB6"
    connect_server mail 25 "$MAIL4" "$MAIL6"
    connect_server dns 53 "$DNS4" "$DNS6"
    connect_leaf bastion bastion0 203.0.113.1/26 "$BASTION4/26" 2001:db8:f::1/64 "$BASTION6/64"
    connect_leaf loghost loghost0 203.0.113.65/26 "$LOGHOST4/26" 2001:db8:e::1/64 "$LOGHOST6/64"
    make_internet
}

make_router() {
    set_sysctl router ipv4/ip_forward 1
    ! has_ipv6 || set_sysctl router ipv6/conf/all/forwarding 1
}

make_switch() {
    # A switch has no address, so it sends nothing.
    ! has_ipv6 || set_sysctl switch ipv6/conf/default/disable_ipv6 1
    ip -n "${NETNS_PREFIX}switch" link add br0 type bridge forward_delay 0
    ip -n "${NETNS_PREFIX}switch" link set br0 up
    join_namespaces router dmz0 switch uplink
    ip -n "${NETNS_PREFIX}switch" link set uplink master br0
    add_address router dmz0 192.0.2.1/24
    ! has_ipv6 || add_address router dmz0 2001:db8:1::1/64
}

# connect_server NAME NUMBER ADDRESS4 ADDRESS6: the MAC address ends with NUMBER.
connect_server() {
    join_namespaces switch "$1" "$1" eth0
    ip -n "${NETNS_PREFIX}switch" link set "$1" master br0
    ip -n "$NETNS_PREFIX$1" link set eth0 address "02:00:00:00:00:$2"
    add_address "$1" eth0 "$3/24"
    ip -n "$NETNS_PREFIX$1" route add default via 192.0.2.1
    has_ipv6 || return 0
    add_address "$1" eth0 "$4/64"
    ip -n "$NETNS_PREFIX$1" -6 route add default via 2001:db8:1::1
}

# connect_leaf NAME ROUTER-IF ROUTER4 ADDRESS4 ROUTER6 ADDRESS6
connect_leaf() {
    join_namespaces router "$2" "$1" eth0
    add_address router "$2" "$3"
    add_address "$1" eth0 "$4"
    ip -n "$NETNS_PREFIX$1" route add default via "${3%/*}"
    has_ipv6 || return 0
    add_address router "$2" "$5"
    add_address "$1" eth0 "$6"
    ip -n "$NETNS_PREFIX$1" -6 route add default via "${5%/*}"
}

# The router's default route leads here, so that a packet to any address is captured when it leaves.
make_internet() {
    join_namespaces router inet0 inet eth0
    add_address router inet0 203.0.113.129/30
    add_address inet eth0 203.0.113.130/30
    add_address inet lo "$VISITOR4/32"
    ip -n "${NETNS_PREFIX}router" route add default via 203.0.113.130
    ip -n "${NETNS_PREFIX}inet" route add local "$INET4" dev lo
    ip -n "${NETNS_PREFIX}inet" route add 192.0.2.0/24 via 203.0.113.129 src "$VISITOR4"
    has_ipv6 || return 0
    add_address router inet0 2001:db8:ffff::1/64
    add_address inet eth0 2001:db8:ffff::2/64
    add_address inet lo "$VISITOR6/128"
    ip -n "${NETNS_PREFIX}router" -6 route add default via 2001:db8:ffff::2
    ip -n "${NETNS_PREFIX}inet" -6 route add local "$INET6" dev lo
    ip -n "${NETNS_PREFIX}inet" -6 route add "$DMZ6" via 2001:db8:ffff::1 src "$VISITOR6"
}
