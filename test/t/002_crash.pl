# kill -9 in the middle of the load: every acknowledged purchase is awarded once, no other is.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\nrestart_after_crash = off\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION loyalty;
	SELECT loyalty.create_program('Club');
	SELECT loyalty.add_tier(1, 'A', 0, 'spend'), loyalty.add_tier(1, 'B', 1000, 'spend', 2);
	SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
	SELECT loyalty.enroll(1, 'm' || i) FROM generate_series(1, 5) i;
	SELECT loyalty.add_challenge(1, 'ten a day', 'visits', 10, 5, 'day'), loyalty.add_challenge(1, 'often', 'visits', 50, badge => 'Often');
});
my $client = PostgreSQL::Test::Utils::tempdir() . '/client.pl';
for my $round (1 .. 5)
{
	# four clients that print the reference of what was acknowledged
	my @logs = map { PostgreSQL::Test::Utils::tempdir() . "/ack.$_" } 1 .. 4;
	my @pids;
	for my $c (1 .. 4)
	{
		my $pid = fork();
		if ($pid == 0)
		{
			open STDOUT, '>', $logs[ $c - 1 ];
			open STDERR, '>', '/dev/null';
			exec 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SET synchronous_commit = on', map { ('-c', "INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (1 + $_ % 5, $_, 'r$round.$c.$_') RETURNING reference") } 1 .. 2000;
		}
		push @pids, $pid;
	}
	# until there is a load, and some more
	usleep(50_000) while -s $logs[0] < 100 && !waitpid($pids[0], 1);
	usleep(50_000 + 100_000 * $round);
	$node->kill9;
	waitpid($_, 0) for @pids;
	# the killed server's backends notice and leave
	for my $attempt (1 .. 50)
	{
		usleep(200_000);
		$node->{_pid} = undef;
		last if $node->start(fail_ok => 1);
	}
	my @acknowledged = map { split /\n/, slurp_file($_) } @logs;
	cmp_ok(scalar(@acknowledged), '>', 10, "round $round: there was a load (" . @acknowledged . ' purchases)');
	my $list = join ',', map { "'$_'" } grep { /^r\d+\.\d+\.\d+$/ } @acknowledged;
	is($node->safe_psql('postgres', "SELECT count(*) FROM unnest(ARRAY[$list]) a WHERE NOT EXISTS (SELECT FROM loyalty.purchase p JOIN loyalty.entry e ON e.source_id = p.purchase_id WHERE p.reference = a)"), '0', "round $round: all that was acknowledged is in the ledger");
	is($node->safe_psql('postgres', 'SELECT * FROM loyalty.check()'), '', "round $round: the books are whole");
}
$node->stop;
done_testing();
