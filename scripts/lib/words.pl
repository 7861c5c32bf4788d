#!/usr/bin/env perl
# words.pl FILE...: finds the words that the glossary of docs/architecture.md has replaced, in what anybody reads.
# A gate is attached or detached, enforcing or observing: whoever reads that it is down takes it for an outage.
# Exit status: 0 none found, 1 some.

use strict;
use warnings;

my $gate = qr/\bgates?(?:\s+on\s+\S+)?/i;
my $is   = qr/(?:is|are|was|were|be|been|being|stays?|stayed|comes?|came|goes|went|has|have|had)/i;

# What to say today, the old words, and where they are something else: a pattern of the path, or of the line.
my @old = (
    # the gate
    [ 'attached',                qr/$gate\s+$is\s+(?:\w+\s+)?down\b/i ],
    [ 'attached',                qr/\bWith the gate down\b/i ],
    [ 'attach',                  qr/\b(?:put|puts|putting)\s+(?:\w+\s+){0,3}?gates?\s+(?:\w+\s+)?down\b/i ],
    [ 'attach',                  qr/$gate\s+(?:\w+\s+){0,4}?put\s+(?:back\s+)?down\b/i ],
    [ 'attach',                  qr/\bput_down\b|\bis_down\b|\bputs? it down\b/i ],
    [ 'detached',                qr/$gate\s+$is\s+(?:\w+\s+)?(?:lifted|raised)\b/i ],
    [ 'detach',                  qr/\b(?:lift|lifts|lifted|lifting|raise|raises|raised|raising)\s+(?:the|a|an|its|this|that|each|every)?\s*gates?\b/i ],
    [ 'detach-on-exit',          qr/\braise[-_\s]on[-_\s]exit\b/i ],
    [ 'replace_programs',        qr/\btake_over\b/ ],
    [ 'live, take effect',       qr/\b(?:in|into)[_\s]force\b/i ],
    [ 'rollback_tracker',        qr/\bend_vain_tracking\b/ ],
    [ 'stage_pins',              qr/\bpin_beside\b/ ],
    [ 'caveats',                 qr/\bsurroundings\b/i ],

    # the programs
    [ 'token bucket',            qr/\bpurses?\b/i ],
    [ 'verdict context',         qr/\bstruct matter\b/ ],
    [ 'peer match',              qr/\bstruct cell\b/ ],
    [ 'fragment position',       qr/\bstruct piece\b/ ],
    [ 'statistic',               qr/\btall(?:y|ies)\b/i ],
    [ 'apply_effects',           qr/\bcarry_out\b/ ],
    [ 'fast path',               qr/\bshortcuts?\b/i ],
    [ 'verdict cache',           qr/\bknown_openings\b|\bknown\.h\b/ ],
    [ 'lookup_cached',           qr/\bjudge_again\b/ ],
    [ 'quota cache',             qr/\bspent_shares\b/ ],
    [ 'quota',                   qr/\bshares?\s+of\s+the\s+ledger\b/i ],
    [ 'ledger overflow',         qr/\bledger_rest\b/ ],
    [ 'ledger bloom',            qr/\bledger_marks\b/ ],
    [ 'no reader',               qr/\bunheard\b/i ],

    # the daemon
    [ 'signals',                 qr/\bdoorbells?\b/i ],
    [ 'metrics snapshot',        qr/\b(?:struct|a|the) Board\b/ ],
    [ 'heartbeat',               qr/\bbeats?\b/i, qr/heartbeat/ ],
    [ 'hot rows',                qr/\bpeek(?:s|ed|ing)?\b/i, qr/\.peek\(/ ],
    [ 'last packet',             qr/\bglimpses?\b|\bglances?\b/i, qr/at a glance/ ],
    # of the ledger's rows, which src/gate/sweep.rs gives back, it is the word
    [ 'reconciler',              qr/\bsweep(?:s|er|ing)?\b/i, qr{without a sweeper|^bpf/|^src/gate/|^src/daemon/event_loop|^docs/|^tests/suite/(?:chaos|program)/} ],
    [ 'poll, reconcile, check',  qr/\blook_at\w*/ ],
    [ 'take_unreported',         qr/\bfn claim\b|\bclaim\(/ ],
    [ 'note_sample',             qr/\bhears?\(/, qr{^tests/suite/(?:model|fuzz)/} ],
    [ 'reported',                qr/(?<![a-z])(?:un)?told(?![a-z])/i, qr/told you|SIEM is told|million_is_told/ ],
    [ 'burst',                   qr/\ballowances?\b/i ],
    [ 'history writer',          qr/\bkeepers?\b/i ],
    [ 'shared',                  qr/\bstruct Desk\b|\bthe desk\b/i ],
    [ 'previous run',            qr/\bheritage\b/i ],
    [ 'retention',               qr/\bstruct Ageing\b/ ],
    [ 'fan-out',                 qr/\boutlets?\b/i ],
    [ 'cancel flag',             qr/\bbrakes?\b/i ],
    [ 'event filter',            qr/\benum Takes\b/ ],
    [ 'permanent error',         qr/\bstruct Refused\b/ ],
    [ 'queued event',            qr/\btickets?\b/i, qr/session/ ],
    [ 'stderr writer',           qr/\bvoices?\b/i ],
    [ 'enqueue',                 qr/\bfn speak\b/ ],
    [ 'spawn_writer',            qr/\bleave_to_thread\b/ ],

    # alarms
    [ 'severe',                  qr/\bgrav(?:e|er|est|ely)\b/i, qr/becomes graver/ ],
    [ 'attempt',                 qr/\b(?:a|the|this|each|every|one|single|first|last)\s+try\b|\b(?:the|these|all|single|many)\s+tries\b/i ],
    [ 'detector',                qr/\bstruct Watch\b/, qr{^tests/} ],
    [ 'describe',                qr/\badvice\b/i ],

    # types
    [ 'gate place, location',    qr/\b(?:struct|enum) Place\b/, qr{^(?:src/policy|tests/suite/conntrack)/} ],
    [ 'reason code, origin',     qr/\b(?:struct|enum) Cause\b/ ],
    [ 'drop event',              qr/\bdrops::Drop\b|\bstruct Drop\b/ ],
    [ 'gate state',              qr/\bfates?\b/i, qr{fragment_fate|^tests/suite/conntrack/} ],
    [ 'gate statistics',         qr/\bstruct Measure\b/ ],
    [ 'table usage',             qr/\bstruct Fill\b/ ],

    # tests
    [ 'test gate',               qr/\bstruct Bench\b/ ],
    [ 'testbed',                 qr/\bstruct World\b|\bfn world\b/, qr{^tests/suite/conntrack/} ],
    [ 'differ',                  qr/\bthe rig\b|\bstruct Rig\b/i ],
    [ 'bench environment',       qr/\bworkshops?\b/i ],
    [ 'netns lab',               qr/\blaborator(?:y|ies)\b/i ],
    [ 'exclusive',               qr/\bown_machine\b/ ],
    [ 'chance',                  qr/\bstruct Dice\b/ ],
);

my $found = 0;
for my $path (@ARGV) {
    open my $file, '<', $path or die "$path: $!\n";
    my $text = do { local $/; <$file> };
    close $file;
    # a sentence goes on in the next line, behind what marks a comment
    ( my $flat = $text ) =~ s{\n([ \t]*(?://[/!]?|\#|\*|>)?[ \t]*)}{' ' x (1 + length $1)}ge;
    for my $word (@old) {
        my ( $better, $pattern, $allowed ) = @$word;
        while ( $flat =~ /$pattern/g ) {
            my ( $begin, $end ) = ( $-[0], $+[0] );
            my $line_begin = 1 + rindex( $text, "\n", $begin - 1 );
            my $line_end   = index( $text, "\n", $end );
            my $context    = substr( $text, $line_begin, ( $line_end < 0 ? length $text : $line_end ) - $line_begin );
            next if $allowed && ( $path =~ $allowed || $context =~ $allowed );
            my $line = 1 + ( substr( $text, 0, $begin ) =~ tr/\n// );
            ( my $said = substr( $flat, $begin, $end - $begin ) ) =~ s/\s+/ /g;
            print "$path:$line: `$said`, today: $better\n";
            $found = 1;
        }
    }
}
exit $found;
