# The everyday commands. Each recipe calls one script of scripts/, which also runs by itself:
# Debian 12 has no package of just (`cargo install just`, or `pip install rust-just`).

set positional-arguments

# Empty for root, sudo for everybody else: most tiers load programs into the kernel.
root := if `id -u` == "0" { "" } else { "sudo" }

# Lists the recipes
default:
    @just --list --unsorted

# Checks format, lints, dependencies and documents (needs no root)
lint:
    scripts/test lint

# Runs the unit tests, or those whose name contains NAME (needs no root)
unit *NAME:
    scripts/test unit "$@"

# Runs a tier: lint, unit, program, fuzz, attack, e2e, chaos, vm; or its tests whose name contains NAME
test TIER *NAME:
    {{ root }} scripts/test "$@"

# Runs what CI runs
ci:
    {{ root }} .ci/run

# Measures what the gate costs: --quick for a first look, --only GROUP, --record for docs/performance.md
bench *OPTION:
    {{ root }} scripts/bench "$@"

# Runs the tests on one of Debian's kernels in an emulated machine, or those whose name contains NAME
vm KERNEL *NAME:
    {{ root }} scripts/vm "$@"

# Compares programs and model, or gate and conntrack: --minutes N, --seed S, --conntrack; --coverage MINUTES fuzzes parsers
fuzz *OPTION:
    {{ root }} scripts/fuzz "$@"

# Shows an infected web server without the gate and behind it; --clean removes what a run has left
demo *OPTION:
    {{ root }} scripts/demo "$@"
