#!/usr/bin/perl
# Random operations, days apart, on the engine and on the model; all that a member has must be equal after each step.
#   test/model/run.pl CLOCK-FILE [SEEDS=100] [OPS=1000] [SEED=7]
# The server's time is what CLOCK-FILE says (libfaketime).  SEED runs one seed alone.  A seed that fails is printed and
# shrunk to a few steps.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Model;

my $clock = shift @ARGV or die "CLOCK-FILE?";
my %arg = (SEEDS => 100, OPS => 1000, FIRST => 1, map { split /=/, $_, 2 } @ARGV);
$| = 1;

sub quote { my $t = shift; "'$t'" }
sub one_of { $_[int rand @_] }

# --- a programme and its operations, from a seed ---
sub policies {
    return (
        start => Time::Local::timegm(0, 0, 9, 1 + int rand 28, int rand 12, 2024 + int rand 2), members => [qw(ann bob cid dan eve)],
        offset => one_of(0, 0, 19800, -18000), rounding => one_of(qw(floor nearest ceil)), hold_days => one_of(0, 0, 3, 14),
        expiry => one_of(qw(never after after after fixed_day)), expiry_months => one_of(0, 1, 2, 6), expiry_days => one_of(5, 10, 20), expiry_round => one_of(qw(day month year)),
        expiry_fixed_day => one_of('02-29', '06-30', '12-31'), negative => one_of(qw(allow allow clamp forbid)), negative_limit => one_of(undef, undef, 0, 50),
        restore => one_of(qw(grace grace expired)), restore_days => one_of(0, 5, 30), reinstate_days => one_of(0, 20, 200), redeem_min => one_of(1, 1, 10), redeem_step => one_of(1, 1, 5), redeem_max => one_of(undef, undef, 100),
        tier_window => one_of(qw(calendar rolling lifetime)), tier_months => one_of(1, 3, 12), revoke_days => one_of(0, 10, 60),
        tiers => one_of([], [[one_of(qw(points spend visits)), one_of(3, 40)], [one_of(qw(points spend)), one_of(200, 500)]]));
}

# an operation that makes some sense in the model's state, or none
sub choose {
    my ($model, $n, $done) = @_;
    my @members = grep { !$model->{member}{$_}{merged_into} } @{$model->{policy}{members}};
    my $member = one_of(@members);
    my $m = $model->{member}{$member};
    my $key = one_of(0, 0, 0, 0, 0, 0, 0, 1) && %{$m->{keys}} ? one_of(sort keys %{$m->{keys}}) : "k$n";
    my $any = sub { my @of = (sort(keys %{$m->{$_[0]}})); @of ? one_of(@of) : "none" };
    my $redemption = sub { my @of = grep { $m->{keys}{$_}{kind} =~ /^(redeem|capture)$/ } sort keys %{$m->{keys}}; @of ? one_of(@of) : "none" };
    my $ref = sub { my @of = sort keys %{$model->{purchase}}; @of ? (rand() < 0.7 ? $of[max2($#of - int rand 12)] : one_of(@of)) : "none" };
    my $points = one_of(1, 5, 10, 15, 20, 50, 100, 1 + int rand 200);
    my $cents = one_of(0, 1, 99, 100, 1000, int rand 20000, int rand 20000);
    my $roll = rand 100;
    return { do => 'wait', seconds => one_of(1, 1, 600, 3600, 40_000, 86_400, 86_400 * (1 + int rand 5), 86_400 * (1 + int rand 40)) } if $roll < 22;
    return { do => 'buy', member => $member, cents => $cents, ago => one_of(0, 0, 0, 1, 50_000, 86_400 * int rand 30), ref => rand() < 0.02 ? $ref->() : "p$n" } if $roll < 42;
    return { do => 'return', ref => $ref->(), cents => one_of(undef, 1, 50, 100, 1000, int rand 20000) } if $roll < 50;
    return { do => 'change', ref => $ref->(), cents => $cents } if $roll < 54;
    return { do => 'void', ref => $ref->(), status => one_of('void', 'void', 'completed') } if $roll < 58;
    return { do => 'redeem', member => $member, points => $points, key => $key, partial => one_of(0, 0, 1) } if $roll < 67;
    return { do => 'hold', member => $member, points => $points, key => $key, partial => one_of(0, 0, 1), ttl => one_of(900, 86_400, 86_400 * 20) } if $roll < 73;
    return { do => 'capture', member => $member, key => one_of($any->('holds'), $any->('holds'), $any->('keys')), points => one_of(undef, undef, $points) } if $roll < 77;
    return { do => 'release', member => $member, key => one_of($any->('holds'), $any->('holds'), $any->('keys')) } if $roll < 79;
    return { do => 'undo', member => $member, key => $redemption->(), rand() < 0.5 ? () : (points => one_of(1, 5, $points), undo_key => $key) } if $roll < 85;
    return { do => 'transfer', member => $member, to => one_of(@members), points => $points, key => $key } if $roll < 89;
    return { do => 'adjust', member => $member, points => one_of(1, 1, -1) * $points, key => $key } if $roll < 94;
    return { do => 'write_off', member => $member, key => $key, points => one_of(undef, $points) } if $roll < 95;
    return { do => 'release_pending', ref => $ref->(), days => one_of(0, 0, 3) } if $roll < 96;
    return { do => 'reinstate', member => $member, key => $key, points => one_of(undef, $points) } if $roll < 97;
    return { do => 'close_expired' } if $roll < 98;
    return { do => 'merge', member => $member, to => one_of(@members) } if $roll < 98.3;
    my @again = grep { my $o = $_; !grep { defined $o->{$_} && $model->{member}{$o->{$_}}{merged_into} } 'member', 'to' } @$done;
    return { %{one_of(@again)} } if @again;
    return { do => 'wait', seconds => 1 };
}
sub max2 { $_[0] > 0 ? $_[0] : 0 }

sub operations {
    my ($seed, $count) = @_;
    srand($seed);
    my %policy = policies();
    my $model = Model->new(%policy);
    my @done;
    for my $n (1 .. $count) {
        my $o = choose($model, $n, \@done);
        $model->apply($o);
        push @done, $o;
    }
    return (\%policy, \@done);
}

# --- the same in SQL ---
sub money { sprintf('%d.%02d', int($_[0] / 100), $_[0] % 100) }
sub points_or_null { defined $_[0] ? $_[0] : 'NULL' }
my %sql = (
    wait => sub { () },
    close_expired => sub { 'SET client_min_messages = error; CALL loyalty.close_expired();' },
    buy => sub { my ($o, $at, $source) = @_; sprintf(q(INSERT INTO loyalty.purchase (member_id, amount, occurred_at, source, reference) VALUES (:%s, %s, '%s+00', '%s', '%s');), $o->{member}, money($o->{cents}), Model::time_text($at - $o->{ago}), $source, $o->{ref}) },
    return => sub { my ($o, $at, $source) = @_; sprintf(q(INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('%s', '%s', %s);), $source, $o->{ref}, defined $o->{cents} ? money($o->{cents}) : 'NULL') },
    change => sub { my ($o, $at, $source) = @_; sprintf(q(UPDATE loyalty.purchase SET amount = %s WHERE source = '%s' AND reference = '%s';), money($o->{cents}), $source, $o->{ref}) },
    void => sub { my ($o, $at, $source) = @_; sprintf(q(UPDATE loyalty.purchase SET status = '%s' WHERE source = '%s' AND reference = '%s';), $o->{status}, $source, $o->{ref}) },
    redeem => sub { my $o = shift; sprintf(q(SELECT redeemed FROM loyalty.redeem(:%s, %d, '%s', partial => %s);), $o->{member}, $o->{points}, $o->{key}, $o->{partial} ? 'true' : 'false') },
    hold => sub { my $o = shift; sprintf(q(SELECT held FROM loyalty.hold(:%s, %d, '%s', partial => %s, ttl => '%d seconds');), $o->{member}, $o->{points}, $o->{key}, $o->{partial} ? 'true' : 'false', $o->{ttl}) },
    capture => sub { my $o = shift; sprintf(q(SELECT redeemed FROM loyalty.capture(:%s, '%s', %s);), $o->{member}, $o->{key}, points_or_null($o->{points})) },
    release => sub { my $o = shift; sprintf(q(SELECT loyalty.release(:%s, '%s');), $o->{member}, $o->{key}) },
    undo => sub { my $o = shift; sprintf(q(SELECT restored FROM loyalty.undo(:%s, '%s', %s, %s);), $o->{member}, $o->{key}, points_or_null($o->{points}), defined $o->{undo_key} ? quote($o->{undo_key}) : 'NULL') },
    transfer => sub { my $o = shift; sprintf(q(SELECT loyalty.transfer(:%s, :%s, %d, '%s');), $o->{member}, $o->{to}, $o->{points}, $o->{key}) },
    adjust => sub { my $o = shift; sprintf(q(SELECT FROM loyalty.adjust(:%s, %d, 'model', '%s');), $o->{member}, $o->{points}, $o->{key}) },
    release_pending => sub { my ($o, $at, $source, $model) = @_; sprintf(q(SELECT loyalty.release_pending((SELECT purchase_id FROM loyalty.purchase WHERE source = '%s' AND reference = '%s'), '%s', 'model');), $source, $o->{ref}, Model::date_text($model->day + $o->{days})) },
    reinstate => sub { my $o = shift; sprintf(q(SELECT loyalty.reinstate(:%s, '%s', 'model', %s);), $o->{member}, $o->{key}, points_or_null($o->{points})) },
    merge => sub { my $o = shift; sprintf(q(SELECT FROM loyalty.merge_members(:%s, :%s, 'model');), $o->{member}, $o->{to}) },
    write_off => sub { my $o = shift; sprintf(q(SELECT loyalty.write_off(:%s, 'model', '%s', %s);), $o->{member}, $o->{key}, points_or_null($o->{points})) },
);

sub set_clock { my ($at) = @_; ("\\o $clock", "\\qecho " . quote(Model::time_text($at)), "\\o") }

sub setup {
    my ($p, $name) = @_;
    my $zone = { 0 => 'UTC', 19800 => 'Asia/Kolkata', -18000 => 'America/Panama' }->{$p->{offset}};
    my @policies = map { "$_ => " . (defined $p->{$_} ? $p->{$_} =~ /^-?\d+$/ ? $p->{$_} : quote($p->{$_}) : 'NULL') }
        qw(rounding hold_days expiry expiry_months expiry_days expiry_round negative negative_limit restore restore_days reinstate_days redeem_min redeem_step redeem_max tier_window tier_months revoke_days);
    push @policies, "expiry_fixed_day => '$p->{expiry_fixed_day}'" if $p->{expiry} eq 'fixed_day';
    my $n = 0;
    return (set_clock($p->{start}), "\\set ON_ERROR_STOP 1",
        "SELECT loyalty.create_program('$name', time_zone => '$zone', " . join(', ', @policies) . ") AS p \\gset",
        "SELECT loyalty.add_rule(:p, 'base', 'purchase', 'base', 'purchase.amount') AS ignored \\gset",
        (map { sprintf("SELECT loyalty.add_tier(:p, 'T%d', %d, '%s') AS ignored \\gset", $n++, $_->[1], $_->[0]) } @{$p->{tiers}}),
        (map { "SELECT loyalty.enroll(:p, '$_', '2020-01-01') AS $_ \\gset" } @{$p->{members}}), "\\set ON_ERROR_STOP 0");
}

# run operations on both; returns the number of the first that differs and how, or nothing
sub compare {
    my ($policy, $operations) = @_;
    my $name = 'model';
    my $model = Model->new(%$policy);
    my @script = ('\\set QUIET 1', '\\pset format unaligned', '\\pset tuples_only on', "SET client_min_messages = warning;", setup($policy, $name));
    my @expected;
    for my $n (0 .. $#$operations) {
        my $o = $operations->[$n];
        my $answer = $model->apply($o);
        push @script, "\\echo = $n";
        if ($o->{do} eq 'wait') { push @script, set_clock($model->{now}), '\\echo 00000' }
        else { push @script, $sql{$o->{do}}->($o, $model->{now}, $name, $model), '\\echo :SQLSTATE' }
        push @script, 'SELECT model.state(:p);';
        push @expected, join("\n", @$answer, $model->state);
    }
    push @script, 'SELECT count(*) FROM loyalty.check();';
    open(my $out, '>', "$clock.sql") or die;
    print $out "$_\n" for @script;
    close $out;
    system('psql', '-qX', '-c', 'SET client_min_messages = error', '-c', 'DROP DATABASE IF EXISTS trial', '-c', 'CREATE DATABASE trial TEMPLATE model') == 0 or die 'no database';
    my $printed = `psql -qXAt -d trial -f '$clock.sql' 2>'$clock.errors'`;
    my ($head, @steps) = split /^= \d+\n/m, $printed;
    my $broken = @steps && $steps[-1] =~ s/\n(\d+)\n\z/\n/ ? $1 : 0;
    chomp @steps;
    for my $n (0 .. $#expected) {
        my $got = $steps[$n] // 'nothing: ' . `tail -n 3 '$clock.errors'`;
        return ($n, $expected[$n], $got) if $got ne $expected[$n];
    }
    return ($#expected, 'check() finds nothing', "check() finds $broken rows") if $broken;
    return;
}

# drop what the failure does not need: halves first, then single operations
sub shrink {
    my ($policy, $operations) = @_;
    my @left = @$operations;
    for (my $size = int(@left / 2); $size >= 1; $size = int($size / 2)) {
        for (my $at = 0; $at < @left;) {
            my @less = @left;
            splice(@less, $at, $size);
            my ($n) = @less ? compare($policy, \@less) : ();
            if (defined $n) { @left = @less[0 .. ($n < $#less ? $n : $#less)] } else { $at += $size }
        }
    }
    return \@left;
}

sub show { my $o = shift; join(' ', $o->{do}, map { "$_=" . ($o->{$_} // '-') } grep { $_ ne 'do' } sort keys %$o) }

my ($first, $last) = defined $arg{SEED} ? ($arg{SEED}, $arg{SEED}) : ($arg{FIRST}, $arg{FIRST} + $arg{SEEDS} - 1);
my ($ran, $failed, $began) = (0, 0, time);
for my $seed ($first .. $last) {
    my ($policy, $operations) = operations($seed, $arg{OPS});
    my ($n) = compare($policy, $operations);
    $ran += @$operations;
    printf STDERR "%s  seed %d of %d: %d operations in %d s\n", scalar(localtime), $seed, $last, $ran, time - $began if $seed % 10 == 0 && !defined $n;
    next if !defined $n;
    $failed++;
    print "seed $seed differs at operation $n; again with SEED=$seed OPS=$arg{OPS}\n";
    my $few = shrink($policy, [@$operations[0 .. $n]]);
    my ($at, $expected, $got) = compare($policy, $few);
    print join(' ', map { "$_=" . (ref $policy->{$_} ? join('/', map { ref $_ ? "@$_" : $_ } @{$policy->{$_}}) : $policy->{$_} // '-') } sort keys %$policy), "\n";
    print "  $_\n" for map { show($_) } @$few;
    print "expected:\n$expected\ngot:\n$got\n\n";
    last if $failed >= ($arg{FAILURES} // 3);
}
print "$ran operations, $failed seeds differ\n";
exit($failed ? 1 : 0);
