# shellcheck shell=bash
# Installs what is missing from Debian's or Ubuntu's packages. Sourced after say.sh, never run.
#
# Nothing is asked, and nothing is started: a package that brings a service brings it switched
# off, now (policy-rc.d) and at the next boot (systemctl disable).

POLICY_RC=/usr/sbin/policy-rc.d
POLICY_RC_SAVED=$POLICY_RC.portcullis-saved
POLICY_RC_MARK='# written by portcullis/scripts for the length of one apt-get'

# is_there NEED: NEED is COMMAND:PACKAGE, or PACKAGE for what brings no command.
is_there() {
    if [[ $1 == *:* ]]; then
        command -v "${1%%:*}" >/dev/null
    elif command -v dpkg-query >/dev/null; then
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
    fi # elsewhere a library can't be asked for; the build tells
}

# print_missing_packages NEED...: one package a line.
print_missing_packages() {
    local need
    for need; do
        is_there "$need" || printf '%s\n' "${need#*:}"
    done | sort -u
}

# install_missing_packages NEED...: root has them installed, anybody else reads which are missing.
install_missing_packages() {
    local missing log
    mapfile -t missing < <(print_missing_packages "$@")
    ((${#missing[@]} > 0)) || return 0
    ((EUID == 0)) || die "these packages are missing: ${missing[*]}" "sudo apt-get install ${missing[*]}"
    log=$(mktemp)
    trap allow_service_start EXIT
    say_note "installing ${missing[*]}" >&2
    install_packages "$log" "${missing[@]}"
    rm -f "$log"
}

# install_packages LOG PACKAGE...: what apt-get says goes into LOG.
install_packages() {
    local log=$1 status=0 before new
    shift
    command -v apt-get >/dev/null ||
        die "these are missing, and there is no apt-get here: $*" "install what your distribution calls them"
    before=$(list_packages)
    # A fresh machine has no package lists, an old one stale lists: always ask for them.
    run_apt update >>"$log" 2>&1 || true # a broken third-party source is not our business
    forbid_service_start "$@"
    run_apt install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null || status=1
    allow_service_start
    # Not "$@" alone: the unit of nginx, for one, comes with nginx-common.
    mapfile -t new < <(LC_ALL=C comm -13 <(echo "$before") <(list_packages))
    disable_services "${new[@]}" >>"$log" 2>&1
    ((status == 0)) || {
        tail -n 8 "$log" >&2
        die "apt-get install $* failed" "the whole output is in $log"
    }
}

list_packages() { dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | LC_ALL=C sort -u; }

run_apt() {
    # needrestart, which Ubuntu has, would restart the user's services unasked.
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold "$@"
}

# forbid_service_start PACKAGE...: for these packages' services only; a policy-rc.d that the
# machine has already goes on deciding for all others.
forbid_service_start() {
    allow_service_start # left over from a run that was killed
    [[ ! -e $POLICY_RC ]] || mv "$POLICY_RC" "$POLICY_RC_SAVED"
    # An installation of openssh-server starts ssh, one of nginx-light nginx: match the stems.
    local package stems=''
    for package; do
        case $package in
        openssh-server) stems+='ssh*|' ;;
        nginx*) stems+='nginx*|' ;;
        *) stems+="$package*|" ;;
        esac
    done
    cat >"$POLICY_RC" <<SCRIPT
#!/bin/sh
$POLICY_RC_MARK
case \$1 in
${stems%|}) exit 101 ;;
esac
[ ! -x $POLICY_RC_SAVED ] || exec $POLICY_RC_SAVED "\$@"
SCRIPT
    chmod 755 "$POLICY_RC"
}

# allow_service_start: puts policy-rc.d back as it was; harmless at any time.
allow_service_start() {
    ! grep -qsF "$POLICY_RC_MARK" "$POLICY_RC" || rm "$POLICY_RC"
    [[ ! -e $POLICY_RC_SAVED ]] || mv "$POLICY_RC_SAVED" "$POLICY_RC"
}

# disable_services PACKAGE...: their units would come up at the next boot otherwise.
disable_services() {
    command -v systemctl >/dev/null || return 0
    local package units
    for package; do
        mapfile -t units < <(dpkg -L "$package" 2>/dev/null |
            sed -nE 's,^(/usr)?/lib/systemd/system/([^/@]+\.(service|socket|timer))$,\2,p')
        ((${#units[@]} == 0)) || systemctl disable --quiet "${units[@]}" || true
    done
}
