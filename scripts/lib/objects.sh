# shellcheck shell=bash
# The programs by other compilers. Sourced after say.sh, never run; ROOT is the checkout.

# build_objects: the programs by every clang there is, 14 or newer; prints the objects, joined by
# colons. A warning of any of them is an error, and so is a chain of calls that needs too much stack.
build_objects() {
    local clang headers version objects=() object
    # libbpf's, as the crate has laid them out
    headers=$(find "$ROOT"/target/debug/build -path '*libbpf-sys*/out/include' -type d | head -n 1)
    [[ -n $headers ]] || {
        echo "no libbpf headers below target/debug/build" >&2
        return 1
    }
    mkdir -p "$ROOT/target/objects"
    for clang in $(compgen -c clang | grep -xE 'clang(-[0-9]+)?' | sort -u); do
        version=$("$clang" -dumpversion | cut -d. -f1)
        ((version >= 14)) || continue
        object=$ROOT/target/objects/portcullis-$version.o
        "$clang" -g -O2 -target bpf -mcpu=v3 -Wall -Wextra -Werror -I "$headers" \
            -I "/usr/include/$(uname -m)-linux-gnu" -c "$ROOT/bpf/portcullis.bpf.c" -o "$object" >&2 || return 1
        "$ROOT/scripts/lib/stack.pl" "$object" >&2 || return 1
        [[ " ${objects[*]} " == *" $object "* ]] || objects+=("$object")
    done
    say_note "built by $(printf '%s ' "${objects[@]##*/}")" >&2
    (IFS=: && echo "${objects[*]}")
}
