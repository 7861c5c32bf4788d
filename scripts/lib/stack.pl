#!/usr/bin/env perl
# stack.pl OBJECT: adds up the stack of each chain of calls in an object, as the verifier of Linux 6.1 does: every
# frame is rounded up to 32 bytes, and 512 bytes are allowed. Newer kernels take more, so no load there shows it.
#
# Exit status: 0 all fit, 1 one does not.

use strict;
use warnings;

my $limit = 512;
my ($object) = @ARGV;
open my $dump, '-|', 'llvm-objdump', '-dr', '--no-show-raw-insn', $object or die "llvm-objdump: $!\n";

my ( %frame, %calls, %at, %is_program );    # %at: a function of .text by its offset in bytes
my ( $section, $function, $pointer, $immediate, $call ) = ('');
while (<$dump>) {
    if (/^Disassembly of section (\S+):/) {
        $section = $1;
    }
    elsif (/^([0-9a-f]+) <(?!LBB)([^>]+)>:/) {
        $function = $2;
        $frame{$function} = 1;
        $at{ hex $1 } = $function if $section eq '.text';
        $is_program{$function} = 1 if $section ne '.text';
    }
    elsif (/R_BPF_64_32\s+(\S+)/) {
        # a static function is named by its section, and by the distance in instructions
        push @{ $calls{$function} }, $1 eq '.text' ? [ ( $call + 1 ) * 8 ] : $1;
    }
    elsif (/R_BPF_64_64\s+\.text/) {
        push @{ $calls{$function} }, [$immediate];    # called by a helper
    }
    next unless defined $function;
    grow($1) while /\(r10 - (\w+)\)/g;
    grow($2) if defined $pointer && /\b$pointer (\+=) -(\w+)/;
    $pointer   = $1 if /\b(r\d) = r10$/;
    $immediate = number($1) if /= (\w+) ll$/;
    $call      = number($1) if /call (-?\w+)$/;
}
close $dump or die "llvm-objdump $object: exit status $?\n";

sub number {
    my ($text) = @_;
    return $text =~ /^(-?)0x(\w+)$/ ? ( $1 ? -hex $2 : hex $2 ) : $text;
}

sub grow {
    my $bytes = number( $_[0] );
    $frame{$function} = $bytes if $bytes > $frame{$function};
}

# deepest FUNCTION: the bytes of its deepest chain, and the chain.
sub deepest {
    my ($name) = @_;
    my ( $bytes, @chain ) = (0);
    for my $called ( @{ $calls{$name} || [] } ) {
        my $callee = ref $called ? $at{ $called->[0] } : $called;
        next unless ref $called || $frame{$called};    # the kernel's own
        die "$object: $name calls a function that is not there\n" unless defined $callee && $frame{$callee};
        my ( $below, @rest ) = deepest($callee);
        ( $bytes, @chain ) = ( $below, @rest ) if $below > $bytes;
    }
    my $own = int( ( $frame{$name} + 31 ) / 32 ) * 32;
    return ( $own + $bytes, "$name $frame{$name}", @chain );
}

die "$object: no programs\n" unless %is_program;
my $status = 0;
for my $program ( sort keys %is_program ) {
    my ( $bytes, @chain ) = deepest($program);
    next if $bytes <= $limit;
    print STDERR "$object: $bytes bytes of stack, and Linux 6.1 allows $limit: ", join( ', ', @chain ), "\n";
    $status = 1;
}
exit $status;
