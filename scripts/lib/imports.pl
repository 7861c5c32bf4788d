#!/usr/bin/env perl
# imports.pl CRATE...: finds imports that go in a circle from file to file, and rooms of src/ that import one below
# them in the table of docs/architecture.md. A CRATE is a root file, such as src/lib.rs.
#
# A name that a module re-exports counts as an import of the file that defines it, and the re-export itself as none.
# Modules under #[cfg(test)] may import anything.
# Exit status: 0 none found, 1 some.

use strict;
use warnings;

# A circle that is known, and goes when the work in this room is done.
my $known = qr{^src/alarm/};

my ( %file_of, %is_test, %text_of, %defines, %exports, %imports );    # all but %imports by module path

# add_module PATH FILE IS_TEST: reads a file and those of its modules.
sub add_module {
    my ( $path, $file, $is_test ) = @_;
    open my $handle, '<', $file or die "$file: $!\n";
    my $text = do { local $/; <$handle> };
    close $handle;
    $text =~ s{/\*.*?\*/}{}gs;
    $text =~ s{//[^\n]*}{}g;
    $text =~ s{b?r(#*)".*?"\1}{""}gs;
    $text =~ s{"(?:[^"\\]|\\.)*"}{""}gs;
    # rustfmt puts the end of a module's block at the depth of its begin
    $text =~ s{^([ \t]*)#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?mod \w+ \{.*?^\1\}}{}gms;
    $file_of{$path} = $file;
    $is_test{$path} = $is_test;
    $defines{$path}{$1} = 1
        while $text =~ /^(?:pub(?:\([^)]*\))? )?(?:(?:const|unsafe|async|extern "") )*(?:fn|struct|enum|union|trait|type|const|static|mod|macro_rules!) (\w+)/gm;

    my $folder = $file =~ m{^(.*)/(?:lib|main|mod)\.rs$} ? $1 : $file =~ s{\.rs$}{}r;
    while ( $text =~ /^((?:[ \t]*#\[[^\n]*\n)*)[ \t]*(?:pub(?:\([^)]*\))? )?mod (\w+);/gm ) {
        my ( $attributes, $name ) = ( $1, $2 );
        next if $attributes =~ /path =/;
        my ($found) = grep { -e } "$folder/$name.rs", "$folder/$name/mod.rs";
        add_module( "$path\::$name", $found, $is_test || $attributes =~ /cfg\(test\)/ ) if $found;
    }
    $text_of{$path} = $text;
}

# expand TREE: the paths of a `use`, each as [path, name here].
sub expand {
    my ($tree) = @_;
    $tree =~ s/^\s+|\s+$//g;
    if ( $tree =~ /^(.*?)\{(.*)\}$/s ) {
        my ( $prefix, $inner, $depth, @parts ) = ( $1, $2, 0, '' );
        for my $char ( split //, $inner ) {
            $depth += ( $char eq '{' ) - ( $char eq '}' );
            if ( $char eq ',' && !$depth ) { push @parts, '' }
            else                           { $parts[-1] .= $char }
        }
        return map { expand("$prefix$_") } map { s/^\s+|\s+$//gr } grep { /\S/ } @parts;
    }
    my ( $path, $name ) = $tree =~ /^(\S+)(?:\s+as\s+(\w+))?$/ or return;
    $path =~ s/::self$//;
    ( $name //= $path ) =~ s/.*:://;
    return [ $path, $name ];
}

# resolve MODULE PATH: the module whose file defines what PATH means in MODULE; undef for another crate's.
sub resolve {
    my ( $module, $path, %asked ) = @_;
    return if $asked{"$module $path"}++;
    my ( $first, @rest ) = split /::/, $path;
    my $at;
    if    ( $first =~ /^(?:crate|portcullis)$/ ) { ($at) = $module =~ /^(\w+)/ }
    elsif ( $first eq 'self' )                   { $at = $module }
    elsif ( $first eq 'super' )                  { ( $at = $module ) =~ s/::\w+$// }
    elsif ( $file_of{"$module\::$first"} )       { $at = "$module\::$first" }
    else                                         { return }
    while (@rest) {
        my $next = shift @rest;
        if ( $next eq 'super' ) { $at =~ s/::\w+$//; next }
        if ( $file_of{"$at\::$next"} ) { $at .= "::$next"; next }
        return $at if $defines{$at}{$next};
        my $exported = $exports{$at}{$next} // return $at;
        return resolve( $at, join( '::', $exported, @rest ), %asked ) // $at;
    }
    return $at;
}

sub read_imports {
    my ($module) = @_;
    my ( $text, @paths ) = ( $text_of{$module} );
    # re-exports were read before
    $text =~ s/^\s*pub(?:\([^)]*\))?\s+use\s[^;]+;//gm;
    while ( $text =~ s/\buse\s+([^;]+);// ) { push @paths, map { $_->[0] } expand($1) }
    push @paths, $1 while $text =~ /(?<![\w:])((?:crate|super|self|portcullis)(?:::\w+)+)/g;
    push @paths, $1 while $text =~ /(?<![\w:.])([a-z]\w*(?:::\w+)+)/g;
    for my $path (@paths) {
        my $from = resolve( $module, $path ) // next;
        $imports{ $file_of{$module} }{ $file_of{$from} } = 1 if $from ne $module && !$is_test{$from};
    }
}

# find_circles: sets of files that reach each other, by Tarjan's algorithm.
sub find_circles {
    my ( $count, %index, %low, @stack, %on_stack, @circles ) = (0);
    my $visit;
    $visit = sub {
        my ($file) = @_;
        $index{$file} = $low{$file} = $count++;
        push @stack, $file;
        $on_stack{$file} = 1;
        for my $next ( sort keys %{ $imports{$file} } ) {
            $visit->($next) if !defined $index{$next};
            $low{$file} = $low{$next} if $on_stack{$next} && $low{$next} < $low{$file};
        }
        return if $low{$file} != $index{$file};
        my @circle;
        do { push @circle, pop @stack; delete $on_stack{ $circle[-1] } } until $circle[-1] eq $file;
        push @circles, [ sort @circle ] if @circle > 1;
    };
    for my $file ( sort keys %imports ) { $visit->($file) if !defined $index{$file} }
    return @circles;
}

# read_ranks: the row of each room of src/ in the table.
sub read_ranks {
    my ( $row, %rank ) = (0);
    open my $page, '<', 'docs/architecture.md' or die "docs/architecture.md: $!\n";
    while (<$page>) {
        next unless /^\| (`[^|]*) \|/;
        $row++;
        my $cell = $1;
        $rank{$1} = $row while $cell =~ m{`src/(\w+)(?:\.rs)?`}g;
    }
    close $page;
    return %rank;
}

my $found = 0;
for my $root (@ARGV) {
    ( %file_of, %is_test, %text_of, %defines, %exports, %imports ) = ();
    add_module( 'root', $root, 0 );
    my $crate = 'root';
    for my $module ( keys %text_of ) {
        while ( $text_of{$module} =~ /^\s*pub(?:\([^)]*\))?\s+use\s+([^;]+);/gm ) {
            $exports{$module}{ $_->[1] } = $_->[0] for expand($1);
        }
    }
    read_imports($_) for grep { !$is_test{$_} } keys %text_of;
    for my $circle ( grep { $_->[0] !~ $known } find_circles() ) {
        $found = 1;
        my %in = map { $_ => 1 } @$circle;
        print "error: these files import each other:\n";
        for my $file (@$circle) {
            print "  $file imports $_\n" for grep { $in{$_} } sort keys %{ $imports{$file} };
        }
    }
    next if $root !~ m{^src/};
    my %rank = read_ranks();
    for my $file ( sort keys %imports ) {
        my ($room) = $file =~ m{^src/(\w+)};
        next if $file eq $root;
        if ( !$rank{$room} ) { print "error: docs/architecture.md has no row for src/$room\n"; $found = 1; next }
        for my $other ( sort keys %{ $imports{$file} } ) {
            my ($imported) = $other =~ m{^src/(\w+)};
            next if $other eq $root || ( $rank{$imported} // 0 ) <= $rank{$room};
            print "error: $file imports $other, whose room stands below it in docs/architecture.md\n";
            $found = 1;
        }
    }
}
exit $found;
