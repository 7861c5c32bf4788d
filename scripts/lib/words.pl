#!/usr/bin/env perl
# words.pl FILE...: finds the words that the glossary of docs/architecture.md has replaced, in what anybody reads.
# A gate is attached or detached, enforcing or observing: whoever reads that it is down takes it for an outage.
# Exit status: 0 none found, 1 some.

use strict;
use warnings;

my $gate = qr/\bgates?(?:\s+on\s+\S+)?/i;
my $is   = qr/(?:is|are|was|were|be|been|being|stays?|stayed|comes?|came|goes|went|has|have|had)/i;
my @old  = (
    [ 'token bucket',          qr/\bpurses?\b/i ],
    [ 'signals',               qr/\bdoorbells?\b/i ],
    [ 'last packet',           qr/\bglimpses?\b/i ],
    [ 'attached',              qr/$gate\s+$is\s+(?:\w+\s+)?down\b/i ],
    [ 'attach',                qr/\b(?:put|puts|putting)\s+(?:\w+\s+){0,3}?gates?\s+(?:\w+\s+)?down\b/i ],
    [ 'attach',                qr/$gate\s+(?:\w+\s+){0,4}?put\s+(?:back\s+)?down\b/i ],
    [ 'attach',                qr/\bput_down\b|\bis_down\b/ ],
    [ 'detached',              qr/$gate\s+$is\s+(?:\w+\s+)?(?:lifted|raised)\b/i ],
    [ 'detach',                qr/\b(?:lift|lifts|lifted|lifting|raise|raises|raised|raising)\s+(?:the|a|an|its|this|that|each|every)?\s*gates?\b/i ],
    [ 'detach-on-exit',        qr/\braise[-_\s]on[-_\s]exit\b/i ],
);

my $found = 0;
for my $path (@ARGV) {
    open my $file, '<', $path or die "$path: $!\n";
    my $text = do { local $/; <$file> };
    close $file;
    # a sentence goes on in the next line, behind what marks a comment
    ( my $flat = $text ) =~ s{\n([ \t]*(?://[/!]?|\#|\*|>)?[ \t]*)}{' ' x (1 + length $1)}ge;
    for my $word (@old) {
        my ( $better, $pattern ) = @$word;
        while ( $flat =~ /$pattern/g ) {
            my $line = 1 + ( substr( $text, 0, $-[0] ) =~ tr/\n// );
            ( my $said = $& ) =~ s/\s+/ /g;
            print "$path:$line: `$said`, today: $better\n";
            $found = 1;
        }
    }
}
exit $found;
