# shellcheck shell=bash
# The servers of the demo: real programs, each with its own configuration in $FOLDER.
# Sourced by scripts/demo.

PYTHON=/usr/bin/python3 # Debian's own, which has aiosmtpd; another Python would not find it

start_servers() {
    start_web
    start_names
    start_mail
    start_loghost
    start_attacker
    start_ssh
    wait_for_servers
}

# unconfined COMMAND...: Debian's AppArmor profiles tie unbound and tcpdump to their own folders. The demo
# does not write there.
unconfined() {
    if grep -qs Y /sys/module/apparmor/parameters/enabled && command -v aa-exec >/dev/null; then
        UNCONFINED=(aa-exec -p unconfined -- "$@")
    else
        UNCONFINED=("$@")
    fi
}

# fill_in FILE TARGET: without IPv6 in the kernel, lines with an IPv6 wildcard are left out.
fill_in() {
    local filler
    filler=$(printf '%0250d' 0)
    if has_ipv6; then cat "$1"; else grep -v '::' "$1"; fi |
        sed "s/@FILLER@/$filler/g" >"$2"
}

start_web() {
    local dir=$FOLDER/web
    mkdir -p "$dir/www"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -subj /CN=www.dmz.example -addext "subjectAltName=DNS:www.dmz.example" \
        -keyout "$dir/web.key" -out "$dir/web.crt" 2>>"$LOGS/openssl.log"
    echo 'hello from the DMZ' >"$dir/www/index.html"
    # Large enough for full-sized segments, retransmissions and a growing congestion window.
    head -c 4000000 /dev/urandom >"$dir/www/large"
    fill_in "$HERE/demo.d/nginx.conf" "$dir/nginx.conf"
    chown -R www-data: "$dir/www"
    start_in web "$LOGS/nginx.log" nginx -p "$dir" -c nginx.conf -e error.log -g 'daemon off;'
}

start_names() {
    local side
    for side in dmz internet; do
        mkdir -p "$FOLDER/$side"
        cp "$HERE/demo.d/unbound-common.conf" "$FOLDER/$side/common.conf"
        fill_in "$HERE/demo.d/unbound-$side.conf" "$FOLDER/$side/unbound.conf"
        sed -i "s,\"common.conf\",\"$FOLDER/$side/common.conf\"," "$FOLDER/$side/unbound.conf"
    done
    unconfined unbound -c "$FOLDER/dmz/unbound.conf"
    start_in dns "$LOGS/unbound-dmz.log" "${UNCONFINED[@]}"
    unconfined unbound -c "$FOLDER/internet/unbound.conf"
    start_in inet "$LOGS/unbound-internet.log" "${UNCONFINED[@]}"
}

start_mail() {
    local maild=$HERE/demo.d/maild.py
    start_in mail "$LOGS/mail-dmz.log" \
        "$PYTHON" "$maild" dmz.example "$FOLDER/mail-dmz.spool" "$DNS4"
    start_in inet "$LOGS/mail-internet.log" \
        "$PYTHON" "$maild" friends.example "$FOLDER/mail-internet.spool" none
}

start_loghost() {
    start_in loghost "$LOGS/loghost.log" "$PYTHON" "$HERE/demo.d/loghost.py" serve "$FOLDER/syslog"
}

start_attacker() {
    : >"$FOLDER/attacker.journal"
    start_in inet "$LOGS/attacker.log" \
        "$PYTHON" "$HERE/demo.d/attacker.py" "$ATTACKER4" "$FOLDER/attacker.journal"
}

# Keys, configuration and the account `admin` exist for this run only. /etc/ssh is not used.
start_ssh() {
    local dir=$FOLDER/ssh name
    mkdir -p "$dir"
    sed '$a admin:*:65533:65534:portcullis demo:/:/bin/sh' /etc/passwd >"$dir/passwd"
    ssh-keygen -q -t ed25519 -N '' -C bastion -f "$dir/bastion"
    cp "$dir/bastion.pub" "$dir/authorized_keys"
    for name in web mail dns; do
        ssh-keygen -q -t ed25519 -N '' -C "$name" -f "$dir/$name"
        printf '%s %s\n' "$(address_of "$name")" "$(cut -d' ' -f1,2 "$dir/$name.pub")"
    done >"$dir/known_hosts"
    for name in web mail dns; do
        start_in "$name" "$LOGS/sshd-$name.log" unshare --mount --uts --propagation private \
            "$HERE/demo.d/sshd" "$name" "$dir"
    done
}

address_of() {
    case $1 in
    web) echo "$WEB4" ;;
    mail) echo "$MAIL4" ;;
    dns) echo "$DNS4" ;;
    esac
}

wait_for_servers() {
    local need name protocol port
    for need in web:tcp:80 web:tcp:443 web:tcp:22 dns:udp:53 dns:tcp:53 dns:tcp:22 mail:tcp:25 \
        mail:tcp:22 loghost:udp:514 loghost:udp:123 inet:udp:53 inet:tcp:53 inet:tcp:25 \
        inet:tcp:80 inet:tcp:21 inet:udp:69 inet:tcp:4444; do
        IFS=: read -r name protocol port <<<"$need"
        wait_until 60 is_listening "$name" "$protocol" "$port" ||
            die "nothing listens on $protocol/$port of the machine '$name'" "see the logs in $LOGS"
    done
    say_ok "nginx, unbound, aiosmtpd, sshd and the hosts of the internet are running"
}
