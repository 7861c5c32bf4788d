# shellcheck shell=bash
# Finds cargo where sudo hides it, and runs it as the person behind sudo, so that target/ stays
# theirs. Sourced after say.sh, never run; ROOT is the checkout.

# pick_builder: SUDO_USER, where they may write here at all. Whoever is not root builds for themselves.
pick_builder() {
    local user=${SUDO_USER:-root}
    ((EUID == 0)) || {
        id -un
        return
    }
    runuser -u "$user" -- test -w "$ROOT" 2>/dev/null || user=root
    echo "$user"
}

# run_as USER COMMAND...
run_as() {
    if ((EUID == 0)); then runuser -u "$1" -- "${@:2}"; else "${@:2}"; fi
}

home_of() {
    if ((EUID == 0)); then getent passwd "$1" | cut -d: -f6; else echo "$HOME"; fi
}

# find_cargo USER: one that USER may execute.
find_cargo() {
    local candidate
    for candidate in "$(home_of "${SUDO_USER:-$1}")/.cargo/bin/cargo" "$(command -v cargo || true)" \
        /root/.cargo/bin/cargo /usr/local/cargo/bin/cargo; do
        if [[ -n $candidate ]] && run_as "$1" test -x "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# print_toolchain RUSTUP_HOME: the name of an installed toolchain that has the compiler of rust-toolchain.toml,
# `stable` perhaps. Nothing, if rustup knows that compiler by its version, or if no toolchain has it.
print_toolchain() {
    local version folder
    version=$(sed -nE 's/^channel = "(.*)"$/\1/p' "$ROOT/rust-toolchain.toml")
    ! compgen -G "$1/toolchains/$version-*" >/dev/null || return 0
    for folder in "$1"/toolchains/*; do
        if [[ $("$folder/bin/rustc" --version 2>/dev/null) == "rustc $version "* ]]; then
            echo "${folder##*/}"
            return
        fi
    done
}

# run_cargo ARGUMENT...: in the checkout.
run_cargo() {
    local user cargo settings rustup toolchain
    user=$(pick_builder)
    cargo=$(find_cargo "$user") ||
        die "cargo is neither in the PATH nor in ~/.cargo/bin" "install Rust: https://rustup.rs"
    settings=("HOME=$(home_of "$user")" "PATH=${cargo%/*}:$PATH" "CARGO_TARGET_DIR=$ROOT/target")
    # rustup looks for its toolchains at home, which is the builder's and not always the one it lives in.
    rustup=${RUSTUP_HOME:-${cargo%/.cargo/bin/cargo}/.rustup}
    if [[ -d $rustup ]]; then
        settings+=("RUSTUP_HOME=$rustup")
        toolchain=$(print_toolchain "$rustup")
        [[ -z $toolchain ]] || settings+=("RUSTUP_TOOLCHAIN=$toolchain")
    fi
    (cd "$ROOT" && run_as "$user" env "${settings[@]}" "$cargo" "$@" </dev/null)
}

# print_test_binaries PATTERN [ARGUMENT]...: builds the tests, with arguments for cargo; those whose line of
# cargo's list matches, one a line. None at all is an error.
print_test_binaries() {
    local binaries
    run_cargo test --locked --no-run -q "${@:2}" || return 1
    binaries=$(run_cargo test --locked --no-run "${@:2}" 2>&1 | sed 's/^ *\(Executable\|Running\) /Running /' |
        grep -E "$1" | sed -nE 's/.*\((.*)\)$/\1/p')
    [[ -n $binaries ]] || {
        echo "no test binary matches $1" >&2
        return 1
    }
    awk -v root="$ROOT" '{ print /^\// ? $0 : root "/" $0 }' <<<"$binaries"
}
