# shellcheck shell=bash
# Boots a kernel under qemu and runs a command there. Sourced after kernels.sh, never run.
#
# Emulated, and by one thread: a machine that has /dev/kvm need not be able to use it, and qemu's
# many-threaded emulation crashes kernels where code is patched while it runs, which attaching a
# program does. VM_ACCEL=kvm for those who know better.

ACCEL=${VM_ACCEL:-tcg,thread=single}
MEMORY=${VM_MEMORY:-2G}
# An emulated CPU is seven to eight times slower, and shares a host CPU: tests wait so much longer, and longer
# still while they find it even slower.
GUEST_PATIENCE=${PORTCULLIS_PATIENCE:-10}
# Of a run as a whole: many times what it takes.
DEADLINE_S=${VM_DEADLINE:-3600}

# Pairs of NICs, each joined inside qemu: the first of a pair is the router's, the second is one
# of a driver that adds nothing of its own. Tests find them by their place on the bus.
NICS=(virtio-net-pci vmxnet3 e1000e)
FAR_NIC=virtio-net-pci
FIRST_SLOT=8

# run_guest FOLDER CONSOLE COMMAND...: boots what prepare_kernel made, runs COMMAND as root in the
# caller's folder, prints what it prints and ends as it does; 125 when the guest died, 124 when time
# was up. What the kernel says goes to CONSOLE. With GUEST_INIT that program takes the machine over when
# COMMAND has succeeded, and something that it starts has to write the status and end the machine.
run_guest() {
    local folder=$1 console=$2 exchange status=0 nics guest
    shift 2
    read -ra nics < <(print_nics)
    exchange=$(mktemp -d)
    echo "$folder" >"$exchange/kernel"
    write_start "$@" >"$exchange/start"
    timeout --kill-after=5 "$DEADLINE_S" qemu-system-x86_64 -accel "$ACCEL" -machine q35 -cpu max -smp 2 \
        -m "$MEMORY" -nodefaults -display none -monitor none -no-reboot \
        -serial "file:$console" -serial stdio \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -virtfs "local,path=$exchange,mount_tag=exchange,security_model=none" \
        "${nics[@]}" \
        -kernel "$folder/vmlinux" -initrd "$folder/image.cpio" \
        -append 'console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable no_timer_check random.trust_cpu=on net.ifnames=0' \
        </dev/null 2> >(grep -v 'is not connected to host network' >&2) &
    guest=$!
    # Shells keep Ctrl-C from what runs in the background.
    # shellcheck disable=SC2064 # this guest
    trap "kill $guest 2>/dev/null" INT TERM
    wait "$guest" || status=$?
    trap - INT TERM
    if [[ -s $exchange/status ]]; then
        status=$(<"$exchange/status")
    elif ((status != 124)); then
        status=125
    fi
    rm -rf "$exchange"
    return "$status"
}

# print_nics: qemu's arguments. No network of the host is behind any of them.
print_nics() {
    local hub=0 slot=$FIRST_SLOT nic
    for nic in "${NICS[@]}"; do
        printf -- '-netdev hubport,id=near%d,hubid=%d ' "$hub" "$hub"
        printf -- '-device %s,netdev=near%d,addr=%x,mac=02:00:00:00:00:01 ' "$nic" "$hub" "$slot"
        printf -- '-netdev hubport,id=far%d,hubid=%d ' "$hub" "$hub"
        printf -- '-device %s,netdev=far%d,addr=%x,mac=02:00:00:00:00:10 ' "$FAR_NIC" "$hub" $((slot + 1))
        hub=$((hub + 1)) slot=$((slot + 2))
    done
}

# print_pairs: what PORTCULLIS_NICS tells the tests: NAME=SLOT,SLOT of each pair.
print_pairs() {
    local slot=$FIRST_SLOT nic
    for nic in "${NICS[@]}"; do
        printf '%s=0000:00:%02x.0,0000:00:%02x.0 ' "${nic%-net-pci}" "$slot" $((slot + 1))
        slot=$((slot + 2))
    done
}

# write_start COMMAND...: the script that init leaves the machine to. In braces: read whole before it begins.
write_start() {
    cat <<SCRIPT
{
exec </dev/null >/dev/ttyS1 2>&1
cd $(printf '%q' "$PWD")
export PATH=$(printf '%q' "$PATH") HOME=/root TERM=dumb
export PORTCULLIS_NICS='$(print_pairs)' PORTCULLIS_PATIENCE=$GUEST_PATIENCE
($(printf '%q ' "$@"))${GUEST_INIT:+ && exec $GUEST_INIT}
echo \$? >/run/vm/status
sync
echo o >/proc/sysrq-trigger
sleep 60
}
SCRIPT
}
