# shellcheck shell=bash
# dev stub
raise_gate() { :; }
check_nothing_dropped() { :; }
attack_with_gate() { :; }
print_alarms() { :; }
print_table() { :; }
lift_gate() { :; }
detach_gate() { :; }
refuse_foreign_gate() { :; }
