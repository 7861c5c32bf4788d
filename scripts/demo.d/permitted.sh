# shellcheck shell=bash
# The permitted traffic of the DMZ, with the clients that people use. Sourced by scripts/demo.

# check NAME COMMAND...: prints a line with a tick or a cross. The output of the command goes into a log.
check() {
    local name=$1
    shift
    if "$@" >>"$LOGS/checks.log" 2>&1; then
        say_ok "$name"
    else
        say_bad "$name ($*: see $LOGS/checks.log)"
    fi
}

check_permitted() {
    check "a visitor reads the web site over http" visit "http://$WEB4/"
    check "… and over https, with a file of 4 MB" visit_large
    ! has_ipv6 || check "… and over IPv6" visit "http://[$WEB6]/"
    check "the DNS server answers over UDP" ask_names inet +notcp www.dmz.example A "$WEB4"
    check "… and over TCP" ask_names inet +tcp dmz.example MX mail.dmz.example
    check "… and asks other servers itself, over UDP" ask_names mail +notcp mail.friends.example A "$PEER_MAIL4"
    check "… and over TCP when the answer is long" ask_names mail +tcp long.friends.example TXT '^"000'
    check "mail comes in" send_mail inet "$MAIL4" someone@dmz.example "$FOLDER/mail-dmz.spool"
    check "mail goes out" send_mail mail 127.0.0.1 friend@friends.example "$FOLDER/mail-internet.spool"
    local name
    for name in web mail dns; do
        check "ssh from the bastion to $name" log_in "$name"
    done
    for name in web mail dns; do
        check "$name logs to the log host" write_log "$name"
        check "… and gets the time from there" ask_time "$name"
    done
}

visit() {
    in_namespace inet curl -sS -m 10 --interface "$(visitor_for "$1")" "$1" | grep -x 'hello from the DMZ'
}

visitor_for() {
    if [[ $1 == *\[* ]]; then echo "$VISITOR6"; else echo "$VISITOR4"; fi
}

visit_large() {
    in_namespace inet curl -sS -m 30 --cacert "$FOLDER/web/web.crt" \
        --resolve "www.dmz.example:443:$WEB4" https://www.dmz.example/large |
        cmp - "$FOLDER/web/www/large"
}

# ask_names MACHINE +tcp|+notcp NAME TYPE PATTERN
ask_names() {
    in_namespace "$1" dig @"$DNS4" +time=3 +tries=2 "$2" +short "$3" "$4" | grep -e "$5"
}

# send_mail MACHINE SERVER TO SPOOL: and waits until it is in SPOOL.
send_mail() {
    local token=$RANDOM$RANDOM$RANDOM
    printf 'From: someone@friends.example\r\nTo: %s\r\nSubject: %s\r\n\r\nhello\r\n' "$3" "$token" |
        in_namespace "$1" curl -sS -m 20 "smtp://$2" --mail-from someone@friends.example \
            --mail-rcpt "$3" --upload-file -
    wait_until 10 grep -qs "$token" "$4"
}

# log_in NAME: checks the host name, which only this server has.
log_in() {
    in_namespace bastion ssh -F /dev/null -i "$FOLDER/ssh/bastion" -o IdentitiesOnly=yes \
        -o BatchMode=yes -o ConnectTimeout=10 -o StrictHostKeyChecking=yes \
        -o UserKnownHostsFile="$FOLDER/ssh/known_hosts" -o GlobalKnownHostsFile=/dev/null \
        "admin@$(address_of "$1")" hostname </dev/null | grep -x "$1"
}

write_log() {
    local token=$RANDOM$RANDOM$RANDOM
    in_namespace "$1" logger --udp --server "$LOGHOST4" --port 514 --tag "$1" "all is well $token"
    wait_until 5 grep -qs "^$(address_of "$1") .*$token" "$FOLDER/syslog"
}

ask_time() { in_namespace "$1" "$PYTHON" "$HERE/demo.d/loghost.py" ask "$LOGHOST4"; }
