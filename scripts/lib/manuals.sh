# shellcheck shell=bash
# Makes the manual pages and the completions. Sourced, never run; ROOT is the checkout.

# print_version: as Cargo.toml has it.
print_version() { sed -nE 's/^version = "(.*)"$/\1/p' "$ROOT/Cargo.toml" | head -n 1; }

# make_manuals TOOL DATE FOLDER: every page and the completions, in a new folder. The tool makes those of its commands.
make_manuals() {
    local version page
    "$1" manuals --date "$2" "$3" || return 1
    version=$(print_version)
    perl "$ROOT/scripts/lib/man.pl" "$2" "$version" "$ROOT/docs/policy.md" >"$3/portcullis.toml.5" || return 1
    for page in portcullis.7 portcullis-guard.8; do
        sed "s/@DATE@/$2/; s/@VERSION@/$version/" "$ROOT/packaging/$page" >"$3/$page"
    done
}
