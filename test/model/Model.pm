package Model;
# An obvious, slow model of what happens to points: what the pages in doc/ say,
# in plain Perl.  Lots never close: what is dead stays where it is and is not
# counted.  Money is in cents, days are counted from 1970-01-01, times in seconds.
use strict;
use warnings;
use POSIX qw(floor);
use Time::Local qw(timegm);

use constant { EVER => 9_000_000, ALWAYS => -9_000_000 };

sub refuse { die { state => $_[0] } }
sub min { my $m = shift; for (@_) { $m = $_ if $_ < $m } $m }
sub max { my $m = shift; for (@_) { $m = $_ if $_ > $m } $m }

# --- the calendar ---
sub civil { my @t = gmtime($_[0] * 86400); ($t[5] + 1900, $t[4] + 1, $t[3]) }
sub day_of { my ($y, $m, $d) = @_; timegm(0, 0, 0, $d, $m - 1, $y) / 86400 }
sub month_days { my ($y, $m) = @_; my @n = (31, $y % 4 == 0 ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31); $n[$m - 1] }
sub add_months {
    my ($day, $months) = @_;
    my ($y, $m, $d) = civil($day);
    my $total = $y * 12 + $m - 1 + $months;
    ($y, $m) = (floor($total / 12), $total % 12 + 1);
    return day_of($y, $m, min($d, month_days($y, $m)));
}
sub date_text { my $day = shift; $day == EVER ? 'infinity' : $day == ALWAYS ? '-infinity' : sprintf('%04d-%02d-%02d', civil($day)) }
sub month_text { my ($y, $m) = civil($_[0]); sprintf('%04d-%02d', $y, $m) }
sub time_text { my @t = gmtime($_[0]); sprintf('%04d-%02d-%02d %02d:%02d:%02d', $t[5] + 1900, $t[4] + 1, @t[3, 2, 1, 0]) }

# --- lots: a hash from "from to" to points; the debt is the lot from ALWAYS to EVER, below zero ---
my $debt_key = ALWAYS . ' ' . EVER;
sub put { my ($lots, $key, $points) = @_; $lots->{$key} += $points; delete $lots->{$key} if $lots->{$key} == 0 }
sub put_all { my ($lots, $more, $sign) = @_; put($lots, $_, $sign * $more->{$_}) for keys %$more }
sub from_of { (split / /, $_[0])[0] }
sub to_of { (split / /, $_[0])[1] }
sub total { my $sum = 0; $sum += $_ for values %{$_[0]}; $sum }
sub debt { -($_[0]{$debt_key} // 0) }
sub lots_text {
    my ($lots, $living_on) = @_;
    return join(' ', map { sprintf('[%s,%s)=%d', date_text(from_of($_)), date_text(to_of($_)), $lots->{$_}) }
        sort { from_of($a) <=> from_of($b) || to_of($a) <=> to_of($b) } grep { to_of($_) > $living_on } keys %$lots);
}
# soonest death first, then the oldest
sub in_spending_order { my $lots = shift; sort { to_of($a) <=> to_of($b) || from_of($a) <=> from_of($b) } grep { $lots->{$_} > 0 } keys %$lots }

# --- a programme with members ---
sub new {
    my ($class, %policy) = @_;
    my $self = bless { policy => \%policy, now => $policy{start}, purchase => {}, member => {} }, $class;
    $self->{member}{$_} = { name => $_, lots => {}, holds => {}, keys => {}, months => {}, tier => -1, since => 0, last => -9e15 } for @{$policy{members}};
    return $self;
}
# a member, or whom it was merged into
sub home { my ($self, $name) = @_; my $m = $self->{member}{$name}; $m = $self->{member}{$m->{merged_into}} while $m->{merged_into}; $m }
sub day { my ($self, $at) = @_; floor((($at // $self->{now}) + $self->{policy}{offset}) / 86400) }

sub expires_on {
    my ($self, $from) = @_;
    my $p = $self->{policy};
    return EVER if $p->{expiry} eq 'never';
    my $end = add_months($from, $p->{expiry_months});
    if ($p->{expiry} eq 'fixed_day') {
        my ($y) = civil($end);
        my ($m, $d) = split /-/, $p->{expiry_fixed_day};
        for (;; $y++) { my $last = day_of($y, $m, min($d, month_days($y, $m))); return $last + 1 if $last > $end }
    }
    $end += $p->{expiry_days};
    return $end if $p->{expiry_round} eq 'day';
    my ($y, $m) = civil($end - 1);
    return day_of($y + 1, 1, 1) if $p->{expiry_round} eq 'year';
    return $m == 12 ? day_of($y + 1, 1, 1) : day_of($y, $m + 1, 1);
}

# the lots that no hold has frozen
sub free {
    my ($self, $m) = @_;
    my %free = %{$m->{lots}};
    put_all(\%free, $_->{lots}, -1) for values %{$m->{holds}};
    return \%free;
}
sub available { my ($lots, $day) = @_; my $sum = 0; for (keys %$lots) { $sum += $lots->{$_} if from_of($_) <= $day && $day < to_of($_) } $sum }
sub pending { my ($lots, $day) = @_; my $sum = 0; for (keys %$lots) { $sum += $lots->{$_} if from_of($_) > $day } $sum }

# points that come repay the debt first
sub earn {
    my ($m, $from, $to, $points) = @_;
    my $repaid = min(debt($m->{lots}), $points);
    put($m->{lots}, $debt_key, $repaid) if $repaid > 0;
    put($m->{lots}, "$from $to", $points - $repaid) if $points > $repaid;
    my %delta;
    $delta{$debt_key} = $repaid if $repaid > 0;
    $delta{"$from $to"} = $points - $repaid if $points > $repaid;
    return \%delta;
}

# points that go: of the lots posted, the pending and latest first; then other pending ones, then living ones; then by policy
sub take_back {
    my ($self, $m, $posted, $points, $unlimited) = @_;
    my $free = $self->free($m);
    my $today = $self->day;
    my %delta;
    my $draw = sub {
        my ($key, $most) = @_;
        my $n = min($most, $points, ($free->{$key} // 0) + ($delta{$key} // 0));
        if ($n > 0) { put(\%delta, $key, -$n); $points -= $n }
    };
    $draw->($_, $posted->{$_}) for sort { from_of($b) <=> from_of($a) || to_of($b) <=> to_of($a) } grep { $posted->{$_} > 0 && $_ ne $debt_key } keys %$posted;
    my @living = grep { to_of($_) > $today } in_spending_order($free);
    $draw->($_, 9e15) for grep { from_of($_) > $today } @living;
    $draw->($_, 9e15) for grep { from_of($_) <= $today } @living;
    if ($points > 0 && ($unlimited || $self->{policy}{negative} ne 'clamp')) {
        my $limit = $self->{policy}{negative_limit};
        refuse('LY401') if !$unlimited && ($self->{policy}{negative} eq 'forbid' || (defined $limit && debt($m->{lots}) + $points > $limit));
        put(\%delta, $debt_key, -$points);
    }
    put_all($m->{lots}, \%delta, 1);
    return \%delta;
}

# a part of lots in spending order, or from its end
sub part {
    my ($lots, $last_first, $skip, $points) = @_;
    my @order = in_spending_order($lots);
    @order = reverse @order if $last_first;
    my %part;
    for my $key (@order) {
        my $n = $lots->{$key};
        my $skipped = min($n, $skip);
        $skip -= $skipped;
        $n = min($n - $skipped, $points);
        $points -= $n;
        put(\%part, $key, $n) if $n > 0;
    }
    return \%part;
}

# lots that come back: those that died live on for a while where the policy says so
sub revived_key {
    my ($self, $key, $today) = @_;
    my $p = $self->{policy};
    return $key if $p->{restore} ne 'grace' || $p->{restore_days} == 0 || to_of($key) > $today;
    return $today . ' ' . ($today + $p->{restore_days});
}
sub give_back {
    my ($self, $m, $lots) = @_;
    earn($m, from_of($_->[0]), to_of($_->[0]), $_->[1])
        for map { [$self->revived_key($_, $self->day), $lots->{$_}] } sort { from_of($a) <=> from_of($b) || to_of($a) <=> to_of($b) } keys %$lots;
}
sub thaw {
    my ($self, $m, $lots, $today) = @_;
    for my $key (keys %$lots) {
        my $now = $self->revived_key($key, $today);
        next if $now eq $key;
        put($m->{lots}, $key, -$lots->{$key});
        put($m->{lots}, $now, $lots->{$key});
    }
}

# --- sums and tiers ---
sub touch { my ($m, $at) = @_; $m->{last} = max($m->{last}, $at) }
sub count { my ($m, $month, $spend, $points, $visits) = @_; my $s = $m->{months}{$month} //= [0, 0, 0]; $s->[0] += $spend; $s->[1] += $points; $s->[2] += $visits }
sub earned {
    my ($self, $m) = @_;
    my $p = $self->{policy};
    my $last = $self->day($m->{last});
    my ($y, $mon) = civil($last);
    my $first = $p->{tier_window} eq 'calendar' ? day_of($y, 1, 1) : $p->{tier_window} eq 'lifetime' ? -200_000 : add_months(day_of($y, $mon, 1), 1 - $p->{tier_months});
    my ($from, $to) = (month_text($first), month_text($last));
    $from = '0000' if $p->{tier_window} eq 'lifetime';
    my @sum = (0, 0, 0);
    for my $month (keys %{$m->{months}}) {
        next if $month lt $from || $month gt $to;
        $sum[$_] += $m->{months}{$month}[$_] for 0 .. 2;
    }
    my $best = -1;
    for my $i (0 .. $#{$p->{tiers}}) {
        my ($metric, $threshold) = @{$p->{tiers}[$i]};
        $best = $i if ($metric eq 'spend' ? $sum[0] / 100 : $metric eq 'points' ? $sum[1] : $sum[2]) >= $threshold;
    }
    return $best;
}
sub promote { my ($self, $m) = @_; my $e = $self->earned($m); if ($e > $m->{tier}) { $m->{tier} = $e; $m->{since} = $m->{last} } }
sub revoke {
    my ($self, $m) = @_;
    return if $m->{tier} < 0 || $self->day - $self->day($m->{since}) > $self->{policy}{revoke_days};
    my $e = $self->earned($m);
    if ($e < $m->{tier}) { $m->{tier} = $e; $m->{since} = $self->{now} }
}

# --- what a purchase should have given, and the difference to what it gave ---
sub rounded { my ($self, $cents) = @_; my $r = $self->{policy}{rounding}; $r eq 'floor' ? floor($cents / 100) : $r eq 'ceil' ? floor(($cents + 99) / 100) : floor(($cents + 50) / 100) }
sub nearest { my ($whole, $part, $of) = @_; floor((2 * $whole * $part + $of) / (2 * $of)) }
sub post_difference {
    my ($self, $b) = @_;
    my $m = $self->home($b->{member});
    my ($points, $spend, $visits) = (0, 0, 0);
    if ($b->{status} eq 'completed') {
        my $gross = $self->rounded($b->{cents});
        my $complete = $b->{complete} || ($b->{returned} && $b->{returned} >= $b->{cents});
        $points = $gross - ($complete ? $gross : $b->{returned} ? nearest($gross, $b->{returned}, $b->{cents}) : 0);
        $spend = $complete ? 0 : $b->{cents} - $b->{returned};
        $visits = $complete ? 0 : 1;
    }
    # what was clamped away is forgiven: down from what was claimed, up from what was given
    my $difference = $points - total($b->{lots});
    $difference = min(0, $points - $b->{counted}[1]) if $difference < 0;
    my $delta = {};
    if ($difference > 0) {
        my $from = $self->day($b->{at}) + $self->{policy}{hold_days};
        $delta = earn($m, $from, $self->expires_on($from), $difference);
    } elsif ($difference < 0) {
        $delta = $self->take_back($m, $b->{lots}, -$difference);
    }
    put_all($b->{lots}, $delta, 1);
    my @change = ($spend - $b->{counted}[0], $points - $b->{counted}[1], $visits - $b->{counted}[2]);
    return if !%$delta && !grep { $_ } @change;
    count($m, month_text($self->day($b->{at})), @change);
    $b->{counted} = [$spend, $points, $visits];
    touch($m, $self->{now});
    $self->promote($m);
    $self->revoke($m);
}

# --- operations: each returns what its statement prints, or refuses and changes nothing ---
my %operation = (
    wait => sub {
        my ($self, $o) = @_;
        $self->{now} += $o->{seconds};
        for my $m (values %{$self->{member}}) {
            for my $key (grep { $m->{holds}{$_}{until} <= $self->{now} } keys %{$m->{holds}}) {
                my $h = delete $m->{holds}{$key};
                $self->thaw($m, $h->{lots}, $self->day($h->{until}));
                $m->{keys}{$key} = { kind => 'release', content => $h->{content}, lapsed => 1, points => total($h->{lots}) };
                touch($m, $h->{until});
            }
        }
        return undef;
    },
    close_expired => sub { undef },
    buy => sub {
        my ($self, $o) = @_;
        refuse('23505') if $self->{purchase}{$o->{ref}};
        my $m = $self->{member}{$o->{member}};
        my $points = $self->rounded($o->{cents});
        my $at = $self->{now} - $o->{ago};
        my $from = $self->day($at) + $self->{policy}{hold_days};
        my $delta = $points > 0 ? earn($m, $from, $self->expires_on($from), $points) : {};
        $self->{purchase}{$o->{ref}} = { member => $o->{member}, cents => $o->{cents}, at => $at, lots => { %$delta }, status => 'completed', returned => 0, complete => 0, counted => [$o->{cents}, $points, 1] };
        count($m, month_text($self->day($at)), $o->{cents}, $points, 1);
        touch($m, $at);
        $self->promote($m);
        return undef;
    },
    change => sub {
        my ($self, $o) = @_;
        my $b = $self->{purchase}{$o->{ref}} or return undef;
        refuse('LY114') if $b->{cents} != $o->{cents} && ($b->{complete} || $b->{returned} > $o->{cents});
        return undef if $b->{cents} == $o->{cents};
        $b->{cents} = $o->{cents};
        $self->post_difference($b);
        return undef;
    },
    void => sub {
        my ($self, $o) = @_;
        my $b = $self->{purchase}{$o->{ref}} or return undef;
        $b->{status} = $o->{status};
        $self->post_difference($b);
        return undef;
    },
    return => sub {
        my ($self, $o) = @_;
        my $b = $self->{purchase}{$o->{ref}} or refuse('LY111');
        refuse('LY112') if $b->{status} eq 'void';
        refuse('LY114') if defined $o->{cents} && $o->{cents} > $b->{cents};
        refuse('LY114') if $b->{complete};
        refuse('LY114') if defined $o->{cents} && $b->{returned} + $o->{cents} > $b->{cents};
        $b->{returned} = defined $o->{cents} ? $b->{returned} + $o->{cents} : $b->{cents};
        $b->{complete} = 1 if $b->{returned} >= $b->{cents};
        # a return always writes an entry
        my $m = $self->home($b->{member});
        touch($m, $self->{now});
        $self->post_difference($b);
        $self->promote($m);
        $self->revoke($m);
        return undef;
    },
    redeem => sub {
        my ($self, $o) = @_;
        my $m = $self->{member}{$o->{member}};
        my $content = "redeem $o->{points} $o->{partial}";
        if (my $k = $m->{keys}{$o->{key}}) {
            refuse('LY404') if $k->{kind} ne 'redeem' || $k->{content} ne $content;
            return $k->{points};
        }
        refuse('LY404') if $m->{holds}{$o->{key}};
        my ($points, $lots) = $self->spend($m, $o);
        put_all($m->{lots}, $lots, -1);
        touch($m, $self->{now});
        $m->{keys}{$o->{key}} = { kind => 'redeem', content => $content, points => $points, lots => $lots, undone => 0 };
        return $points;
    },
    hold => sub {
        my ($self, $o) = @_;
        my $m = $self->{member}{$o->{member}};
        my $content = "hold $o->{points} $o->{partial}";
        if (my $k = $m->{keys}{$o->{key}}) {
            refuse('LY404') if ($k->{kind} ne 'capture' && $k->{kind} ne 'release') || $k->{content} ne $content;
            return $k->{held} // $k->{points};
        }
        if (my $h = $m->{holds}{$o->{key}}) {
            refuse('LY404') if $h->{content} ne $content;
            return total($h->{lots});
        }
        my ($points, $lots) = $self->spend($m, $o);
        $m->{holds}{$o->{key}} = { lots => $lots, content => $content, until => $self->{now} + $o->{ttl} };
        return $points;
    },
    capture => sub {
        my ($self, $o) = @_;
        my $m = $self->{member}{$o->{member}};
        if (my $k = $m->{keys}{$o->{key}}) {
            refuse($k->{lapsed} ? 'LY423' : 'LY422') if $k->{kind} eq 'release';
            refuse('LY425') if $k->{kind} ne 'capture';
            refuse('LY404') if ($k->{asked} // -1) != ($o->{points} // -1);
            return $k->{points};
        }
        my $h = $m->{holds}{$o->{key}} or refuse('LY425');
        my $held = total($h->{lots});
        my $points = $o->{points} // $held;
        refuse('LY424') if $points > $held;
        my $lots = part($h->{lots}, 0, 0, $points);
        delete $m->{holds}{$o->{key}};
        put_all($m->{lots}, $lots, -1);
        my %rest = %{$h->{lots}};
        put_all(\%rest, $lots, -1);
        $self->thaw($m, \%rest, $self->day);
        touch($m, $self->{now});
        $m->{keys}{$o->{key}} = { kind => 'capture', content => $h->{content}, points => $points, lots => $lots, undone => 0, asked => $o->{points}, held => $held };
        return $points;
    },
    release => sub {
        my ($self, $o) = @_;
        my $m = $self->{member}{$o->{member}};
        if (my $k = $m->{keys}{$o->{key}}) {
            refuse('LY422') if $k->{kind} eq 'capture';
            refuse('LY425') if $k->{kind} ne 'release';
            return $k->{points};
        }
        my $h = delete $m->{holds}{$o->{key}} or refuse('LY425');
        $self->thaw($m, $h->{lots}, $self->day);
        touch($m, $self->{now});
        $m->{keys}{$o->{key}} = { kind => 'release', content => $h->{content}, points => total($h->{lots}) };
        return total($h->{lots});
    },
    undo => sub {
        my ($self, $o) = @_;
        my $m = $self->{member}{$o->{member}};
        my $undo_key = $o->{undo_key} // "undo $o->{key}";
        my $content = "undo $o->{key} " . ($o->{points} // 'all');
        my $r = $m->{keys}{$o->{key}};
        refuse('LY425') if !$r || ($r->{kind} ne 'redeem' && $r->{kind} ne 'capture');
        if (my $k = $m->{keys}{$undo_key}) {
            refuse('LY404') if $k->{kind} ne 'undo' || $k->{content} ne $content;
            return $k->{points};
        }
        refuse('LY404') if $m->{holds}{$undo_key};
        my $left = $r->{points} - $r->{undone};
        my $points = $o->{points} // $left;
        refuse('LY426') if $points > $left || $left == 0;
        $self->give_back($m, part($r->{lots}, 1, $r->{undone}, $points));
        $r->{undone} += $points;
        touch($m, $self->{now});
        $m->{keys}{$undo_key} = { kind => 'undo', content => $content, points => $points };
        return $points;
    },
    transfer => sub {
        my ($self, $o) = @_;
        my ($m, $to) = @{$self->{member}}{$o->{member}, $o->{to}};
        refuse('LY431') if $m == $to;
        my $content = "transfer $o->{to} $o->{points}";
        if (my $k = $m->{keys}{$o->{key}}) {
            refuse('LY404') if $k->{kind} ne 'transfer' || $k->{content} ne $content;
            return $o->{points};
        }
        refuse('LY404') if $m->{holds}{$o->{key}};
        refuse('LY411') if debt($m->{lots}) > 0;
        my $free = $self->free($m);
        refuse('LY401') if available($free, $self->day) < $o->{points};
        my $lots = $self->soonest($free, $o->{points});
        put_all($m->{lots}, $lots, -1);
        earn($to, from_of($_), to_of($_), $lots->{$_}) for sort { from_of($a) <=> from_of($b) || to_of($a) <=> to_of($b) } keys %$lots;
        touch($_, $self->{now}) for $m, $to;
        $m->{keys}{$o->{key}} = { kind => 'transfer', content => $content };
        return $o->{points};
    },
    adjust => sub {
        my ($self, $o) = @_;
        my $m = $self->{member}{$o->{member}};
        if (my $k = $m->{keys}{$o->{key}}) {
            refuse('LY404') if $k->{kind} ne 'adjust' || $k->{content} ne $o->{points};
            return undef;
        }
        refuse('LY404') if $m->{holds}{$o->{key}};
        if ($o->{points} > 0) {
            earn($m, $self->day, $self->expires_on($self->day), $o->{points});
        } else {
            $self->take_back($m, {}, -$o->{points});
        }
        touch($m, $self->{now});
        $m->{keys}{$o->{key}} = { kind => 'adjust', content => $o->{points} };
        return undef;
    },
    release_pending => sub {
        my ($self, $o) = @_;
        my $b = $self->{purchase}{$o->{ref}} or return 0;
        my ($m, $today, $moved) = ($self->home($b->{member}), $self->day, 0);
        my $day = $today + $o->{days};
        my $free = $self->free($m);
        my %delta;
        for my $key (grep { $_ ne $debt_key } keys %{$b->{lots}}) {
            my $n = min($b->{lots}{$key}, $free->{$key} // 0);
            next if $n <= 0 || from_of($key) <= $today || from_of($key) == $day;
            put(\%delta, $key, -$n);
            put(\%delta, $day . ' ' . $self->expires_on($day), $n);
            $moved += $n;
        }
        put_all($m->{lots}, \%delta, 1);
        put_all($b->{lots}, \%delta, 1);
        touch($m, $self->{now}) if %delta;
        return $moved;
    },
    reinstate => sub {
        my ($self, $o) = @_;
        my $m = $self->{member}{$o->{member}};
        my ($p, $today) = ($self->{policy}, $self->day);
        if (my $k = $m->{keys}{$o->{key}}) {
            refuse('LY404') if $k->{kind} ne 'reinstate' || (defined $o->{points} && $k->{points} != $o->{points});
            return $k->{points};
        }
        refuse('LY404') if $m->{holds}{$o->{key}};
        my $free = $self->free($m);
        my %dead = map { $_ => $free->{$_} } grep { $free->{$_} > 0 && to_of($_) <= $today && to_of($_) >= $today - $p->{reinstate_days} } keys %$free;
        my $points = $o->{points} // total(\%dead);
        refuse('LY406') if $points <= 0 || $points > total(\%dead) || $p->{restore_days} == 0;
        put_all($m->{lots}, part(\%dead, 1, 0, $points), -1);
        earn($m, $today, $today + $p->{restore_days}, $points);
        touch($m, $self->{now});
        $m->{keys}{$o->{key}} = { kind => 'reinstate', points => $points };
        return $points;
    },
    merge => sub {
        my ($self, $o) = @_;
        my ($m, $to) = @{$self->{member}}{$o->{member}, $o->{to}};
        refuse('LY433') if $m == $to;
        return undef if ($m->{merged_into} // '') eq $o->{to};
        refuse('LY433') if $m->{merged_into} || $to->{merged_into} || %{$m->{holds}};
        my $today = $self->day;
        my $lots = $m->{lots};
        $m->{lots} = {};
        for (sort { from_of($a) <=> from_of($b) || to_of($a) <=> to_of($b) } grep { $_ ne $debt_key } keys %$lots) {
            if (to_of($_) <= $today) { put($to->{lots}, $_, $lots->{$_}) } else { earn($to, from_of($_), to_of($_), $lots->{$_}) }
        }
        $self->take_back($to, {}, debt($lots), 1) if debt($lots) > 0;
        count($to, $_, @{$m->{months}{$_}}) for keys %{$m->{months}};
        $m->{months} = {};
        touch($_, $self->{now}) for $m, $to;
        if ($m->{tier} > $to->{tier}) { @$to{'tier', 'since'} = @$m{'tier', 'since'} }
        $self->promote($to);
        $m->{merged_into} = $o->{to};
        return undef;
    },
    write_off => sub {
        my ($self, $o) = @_;
        my $m = $self->{member}{$o->{member}};
        if (my $k = $m->{keys}{$o->{key}}) {
            refuse('LY404') if $k->{kind} ne 'write_off' || $k->{content} ne ($o->{points} // 'all');
            return $k->{points};
        }
        refuse('LY404') if $m->{holds}{$o->{key}};
        my $debt = debt($m->{lots});
        my $points = $o->{points} // $debt;
        refuse('LY432') if $debt == 0 || $points > $debt;
        put($m->{lots}, $debt_key, $points);
        touch($m, $self->{now});
        $m->{keys}{$o->{key}} = { kind => 'write_off', content => $o->{points} // 'all', points => $points };
        return $points;
    },
);

# the lots that so many points leave from
sub soonest {
    my ($self, $free, $points) = @_;
    my $today = $self->day;
    my %living = map { $_ => $free->{$_} } grep { $free->{$_} > 0 && from_of($_) <= $today && $today < to_of($_) } keys %$free;
    return part(\%living, 0, 0, $points);
}
# how many points a redemption or a hold takes, and from where
sub spend {
    my ($self, $m, $o) = @_;
    my $p = $self->{policy};
    refuse('LY411') if debt($m->{lots}) > 0;
    my $free = $self->free($m);
    my $available = available($free, $self->day);
    my $points = $o->{points};
    if ($o->{partial}) {
        $points = min($points, $available, $p->{redeem_max} // 9e15);
        $points -= $points % $p->{redeem_step};
        refuse('LY401') if $points < $p->{redeem_min} && $available < $p->{redeem_min};
    }
    refuse('LY412') if $points < $p->{redeem_min};
    refuse('LY413') if $points % $p->{redeem_step};
    refuse('LY414') if defined $p->{redeem_max} && $points > $p->{redeem_max};
    refuse('LY401') if $points > $available;
    return ($points, $self->soonest($free, $points));
}

sub copy { my $x = shift; ref $x eq 'HASH' ? { map { $_ => copy($x->{$_}) } keys %$x } : ref $x eq 'ARRAY' ? [map { copy($_) } @$x] : $x }

# what an operation prints, then its SQLSTATE
sub apply {
    my ($self, $o) = @_;
    my $before = copy({ member => $self->{member}, purchase => $self->{purchase} });
    my $printed = eval { $operation{$o->{do}}->($self, $o) };
    if ($@) {
        die $@ unless ref $@;
        $self->{$_} = $before->{$_} for 'member', 'purchase';
        return [$@->{state}];
    }
    return [defined $printed ? $printed : (), '00000'];
}

# all that is to be equal, a line a member
sub state {
    my $self = shift;
    my $today = $self->day;
    my @lines;
    for my $name (sort keys %{$self->{member}}) {
        my $m = $self->{member}{$name};
        my $free = $self->free($m);
        my %held;
        put_all(\%held, $_->{lots}, 1) for values %{$m->{holds}};
        push @lines, join('|', $name, lots_text($free, $today), lots_text(\%held, ALWAYS - 1),
            join(', ', map { my $s = $m->{months}{$_}; sprintf('%s: %s %d %d', $_, $s->[0], $s->[1], $s->[2]) } grep { my $s = $m->{months}{$_}; grep { $_ } @$s } sort keys %{$m->{months}}),
            $m->{tier} < 0 ? '-' : "T$m->{tier}", max(available($free, $today), 0), pending($free, $today), total(\%held), debt($m->{lots}));
    }
    return join("\n", @lines);
}
1;
