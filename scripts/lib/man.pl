#!/usr/bin/env perl
# man.pl DATE VERSION PAGE.md: the page on the policy's language as portcullis.toml(5), on standard output.
# So there is one text. It knows the Markdown that docs/policy.md uses, and dies of anything that it does not.

use strict;
use warnings;

use constant WIDTH => 78;

my ($date, $version, $page) = @ARGV;
open my $file, '<:encoding(UTF-8)', $page or die "$page: $!\n";
my @lines = <$file>;
chomp @lines;
binmode STDOUT, ':encoding(UTF-8)';

my $begun = 0;    # a paragraph would follow a heading or a list

print <<"HEAD";
.TH PORTCULLIS.TOML 5 $date "portcullis $version" "The gate on a DMZ router"
.SH NAME
portcullis.toml \\- the policy of a DMZ interface
.SH SYNOPSIS
.I /etc/portcullis/IF.toml
.SH DESCRIPTION
HEAD

# Text as roff takes it: `-` is what is typed.
sub escape {
    my ($text) = @_;
    $text =~ s/\\/\\e/g;
    $text =~ s/-/\\-/g;
    $text =~ s/'/\\(aq/g;
    $text =~ s/\N{U+2026}/.../g;
    die "$page: not ASCII: $text\n" if $text =~ /[^\x00-\x7f]/;
    return $text;
}

# Code and emphasis as fonts, links as their text. In a heading there are no fonts.
sub inline {
    my ($text, $plain) = @_;
    my ($bold, $roman) = $plain ? ('', '') : ("\\fB", "\\fR");
    $text =~ s/\[([^\]]*)\]\([^)]*\)/$1/g;
    my @parts = split /(`[^`]*`|\*\*[^*]+\*\*)/, $text;
    return join '', map { /^`(.*)`$/s || /^\*\*(.*)\*\*$/s ? $bold . escape($1) . $roman : escape($_) } @parts;
}

# None of the lines begins with what would make it a request.
sub wrapped {
    my ($text) = @_;
    my @out = ('');
    for my $word (split ' ', $text) {
        if ($out[-1] ne '' && length("$out[-1] $word") > WIDTH) { push @out, ''; }
        $out[-1] .= ($out[-1] eq '' ? '' : ' ') . $word;
    }
    return join '', map { (/^[.']/ ? "\\&$_" : $_) . "\n" } @out;
}

sub paragraph {
    my ($text) = @_;
    print ".PP\n" if $begun;
    print wrapped(inline($text));
    $begun = 1;
}

# cells ROW: of a table. A pipe in code is no border.
sub cells {
    my ($row) = @_;
    $row =~ s/^\|\s*//;
    $row =~ s/\s*\|\s*$//;
    return map { s/\\\|/|/gr } split /\s+\|\s+/, $row;
}

# A row is an entry: its first cell, and what the others say.
sub table {
    my ($head, @rows) = @_;
    my @titles = cells($head);
    for my $row (@rows) {
        my ($first, @rest) = cells($row);
        my @texts;
        for my $number (0 .. $#rest) {
            my $text = $rest[$number];
            next if $text eq '';
            $text .= '.' if $text !~ /[.:?]$/;
            push @texts, $number == 0 ? $text : ucfirst("$titles[$number + 1]: $text");
        }
        my ($tag, $text) = (inline($first), wrapped(inline(join ' ', @texts)));
        # a tag is one line of roff
        print length $tag <= WIDTH ? ".TP\n$tag\n$text" : ".PP\n" . wrapped($tag) . ".RS\n$text.RE\n";
    }
    $begun = 1;
}

shift @lines if $lines[0] =~ /^# /;
while (@lines) {
    my $line = shift @lines;
    if ($line =~ /^\s*$/) {
        next;
    } elsif ($line =~ /^(##+) (.*)/) {
        my $title = inline($2, 1);
        print length $1 == 2 ? ".SH " . uc($title) . "\n" : ".SS $title\n";
        $begun = 0;
    } elsif ($line =~ /^```/) {
        print ".PP\n" if $begun;
        print ".RS 4\n.nf\n";
        while (@lines && $lines[0] !~ /^```/) {
            my $code = escape(shift @lines);
            $code =~ s/^(?=[.'])/\\&/;
            print $code eq '' ? ".sp\n" : "$code\n";
        }
        shift @lines;
        print ".fi\n.RE\n";
        $begun = 1;
    } elsif ($line =~ /^\|/) {
        my @rows = ($line);
        push @rows, shift @lines while @lines && $lines[0] =~ /^\|/;
        table($rows[0], @rows[2 .. $#rows]);
    } elsif ($line =~ /^- (.*)/) {
        my $text = $1;
        $text .= ' ' . shift @lines while @lines && $lines[0] =~ /^  \S/;
        print ".IP \\(bu 2\n", wrapped(inline($text));
        $begun = 1;
    } else {
        die "$page: no such Markdown: $line\n" if $line =~ /^(?:#|>|\*|\d+\.|    )/;
        $line .= ' ' . shift @lines while @lines && $lines[0] =~ /^\S/ && $lines[0] !~ /^(?:[-#|`]\s|```)/;
        paragraph($line);
    }
}

print <<'TAIL';
.SH FILES
.TP
.I /etc/portcullis/IF.toml
The policy of an interface, as the units expect it.
.TP
.I /usr/share/doc/portcullis/examples/
Policies to begin with.
.SH SEE ALSO
.BR portcullis (1),
.BR portcullis\-check (1),
.BR portcullis\-test (1),
.BR portcullis (7)
TAIL
