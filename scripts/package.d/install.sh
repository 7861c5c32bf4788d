# shellcheck shell=bash
# Installs a package in fresh Debians: scripts/package --install-test. Sourced, never run.
#
# Each Debian is a folder that debootstrap makes. It has network, processes and bpf file system of its own, so a gate is
# attached there for real, but no systemd: the boot of the units is what `scripts/vm boot` tests.

# test_installs DEB [SUITE]...
test_installs() {
    local deb=$1 suite folder
    ((EUID == 0)) || die "Debians are installed into folders: this needs root" "sudo $0 --install-test"
    [[ -f $deb ]] || die "there is no $deb" "scripts/package"
    install_missing_packages debootstrap:debootstrap ip:iproute2 unshare:util-linux
    shift
    (($# > 0)) || set -- bookworm trixie
    for suite; do
        say_step "$suite"
        folder=$WORK/debian/$suite
        make_debian "$suite" "$folder" || die "debootstrap failed" "see $folder/debootstrap/debootstrap.log"
        cp "$deb" "$folder/portcullis.deb"
        cp "$HERE/package.d/inside" "$folder/inside"
        if unshare --mount --net --pid --fork "$HERE/package.d/enter" "$folder" "$VERSION"; then
            say_ok "$suite: installed, attached, installed again, removed, purged"
        else
            say_bad "$suite"
        fi
    done
}

# make_debian SUITE FOLDER: from the mirror that this machine has. A folder is kept for the next run.
make_debian() {
    local mirror
    [[ ! -e $2/etc/debian_version ]] || return 0
    # shellcheck disable=SC2016 # apt-get expands it
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -n 1)
    rm -rf "$2"
    mkdir -p "$2"
    debootstrap --variant=minbase --include=iproute2,nftables "$1" "$2" "$mirror" >"$WORK/debootstrap.log" 2>&1
}
