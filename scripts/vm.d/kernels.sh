# shellcheck shell=bash
# Debian's kernels: which there are, and one of them made ready to boot. Sourced after say.sh, never
# run. Nothing is installed: packages are unpacked below KERNELS, the cache, and stay there.
#
# KERNELS/PACKAGE/ is a package unpacked, with
#   version      what `uname -r` will say; written last, so that a folder without it is unfinished
#   vmlinux      the kernel without its decompressor, which takes seconds when emulated
#   image.cpio   the first file system: busybox, the modules on the way to the host's files, init

KERNELS=${XDG_CACHE_HOME:-$HOME/.cache}/portcullis/kernels
# What init needs to mount the host's files. Everything else is loaded from there.
ROOT_MODULES=(virtio_pci 9pnet_virtio 9p overlay)

# list_kernels: SERIES PACKAGE lines, the newest package of each series that apt can fetch. Plain
# kernels only: the cloud ones have no 9p.
list_kernels() {
    apt-cache pkgnames linux-image- | grep -E '^linux-image-[0-9]+\.[0-9]+\.[0-9].*-amd64$' |
        grep -vE -- '-(cloud|rt)-amd64$|unsigned' | sort -V |
        sed -E 's/^linux-image-([0-9]+\.[0-9]+)\..*/\1 &/' | while read -r series package; do
        # not grep -q, which would end apt-cache by SIGPIPE
        if apt-cache policy "$package" | grep -E 'Candidate: [0-9]' >/dev/null; then echo "$series $package"; fi
    done | awk '{ newest[$1] = $2 } END { for (series in newest) print series, newest[series] }' | sort -V
}

# find_kernel SERIES: its package.
find_kernel() {
    local package
    package=$(list_kernels | awk -v series="$1" '$1 == series { print $2 }')
    [[ -n $package ]] && echo "$package"
}

# prepare_kernel PACKAGE: prints its folder.
prepare_kernel() {
    local folder=$KERNELS/$1 version
    if [[ ! -s $folder/version ]]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        unpack_package "$1" "$folder" || return 1
        version=$(basename "$(echo "$folder"/lib/modules/*)")
        depmod -b "$folder" "$version" &&
            extract_vmlinux "$(find_vmlinuz "$folder" "$version")" "$folder/vmlinux" &&
            make_image "$folder" "$version" || return 1
        rm -rf "${folder:?}"/{boot,usr/share}
        echo "$version" >"$folder/version"
    fi
    # init may have changed since
    append_init "$folder"
    echo "$folder"
}

# unpack_package PACKAGE FOLDER: with those that hold its parts, where a kernel is more than one.
unpack_package() {
    local archives=$2/archives part
    mkdir "$archives"
    fetch_package "$archives" "$1" || return 1
    for part in $(dpkg-deb -f "$archives"/*.deb Depends | grep -oE 'linux-(binary|modules)-[0-9][^ ,]*'); do
        fetch_package "$archives" "$part" || return 1
    done
    for part in "$archives"/*.deb; do
        dpkg-deb -x "$part" "$2"
    done
    rm -r "$archives"
    [[ -d $2/lib/modules ]] || ln -s usr/lib "$2/lib" # from Debian 13 on
}

# unpack_ifupdown: prints the folder of the package ifupdown. Installed, it would configure this machine's network.
unpack_ifupdown() {
    local folder=$KERNELS/ifupdown
    [[ -x $folder/sbin/ifup || -x $folder/usr/sbin/ifup ]] || {
        rm -rf "$folder"
        mkdir -p "$folder"
        fetch_package "$folder" ifupdown && dpkg-deb -x "$folder"/*.deb "$folder" || return 1
    }
    echo "$folder"
}

fetch_package() {
    (cd "$1" && apt-get download -qq -o APT::Sandbox::User=root "$2" >&2)
}

find_vmlinuz() {
    local file
    for file in "$1/boot/vmlinuz-$2" "$1/lib/modules/$2/vmlinuz"; do
        [[ ! -e $file ]] || echo "$file"
    done | head -n 1
}

# extract_vmlinux VMLINUZ FILE: the header says where the compressed kernel lies (fields setup_sects,
# payload_offset and payload_length of Documentation/arch/x86/boot.rst).
extract_vmlinux() {
    local sectors offset length start
    sectors=$(read_number "$1" 0x1f1 1)
    offset=$(read_number "$1" 0x248 4)
    length=$(read_number "$1" 0x24c 4)
    start=$(((sectors + 1) * 512 + offset))
    # Behind the stream stands its size, four bytes that are not part of it (but of gzip's).
    case $(read_number "$1" "$start" 4) in
    1484404733) cut_file "$1" "$start" $((length - 4)) | xz -dc >"$2" ;;
    4247762216) cut_file "$1" "$start" $((length - 4)) | zstd -dcq >"$2" ;;
    *) cut_file "$1" "$start" "$length" | gzip -dc >"$2" ;;
    esac || {
        echo "$1: compressed in a way that is not known here" >&2
        return 1
    }
}

# cut_file FILE OFFSET BYTES
cut_file() {
    head -c $(($2 + $3)) "$1" | tail -c "$3"
}

# read_number FILE OFFSET BYTES: as x86 has it.
read_number() {
    od -A n -j "$(($2))" -N "$3" -t "u$3" --endian=little "$1" | tr -d ' '
}

# make_image FOLDER VERSION
make_image() {
    local image=$1/image file name
    mkdir -p "$image"/{bin,dev,modules,proc,sys}
    cp "$(command -v busybox)" "$image/bin/busybox"
    ln -s busybox "$image/bin/sh"
    for name in "${ROOT_MODULES[@]}"; do
        modprobe -d "$1" -S "$2" --show-depends "$name" || return 1
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
        name=$(basename "$file" | sed -E 's/\.(xz|zst|gz)$//')
        case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) zstd -dcq "$file" ;;
        *.gz) gzip -dc "$file" ;;
        *) cat "$file" ;;
        esac >"$image/modules/$name"
        echo "$name"
    done >"$image/modules/order"
    make_archive "$image" >"$1/modules.cpio"
    rm -r "$image"
}

# append_init FOLDER: archives may follow each other, and what comes later counts.
append_init() {
    local image
    image=$(mktemp -d)
    install -m 755 "$VM_PARTS/init" "$image/init"
    { cat "$1/modules.cpio" && make_archive "$image"; } >"$1/image.cpio.$$"
    mv "$1/image.cpio.$$" "$1/image.cpio"
    rm -r "$image"
}

make_archive() { (cd "$1" && find . | busybox cpio -o -H newc 2>/dev/null); }
