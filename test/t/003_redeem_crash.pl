# kill -9 of every process of the server in the middle of redemptions, holds, undos, returns and transfers: what was
# acknowledged is there exactly once, what lost its acknowledgement at most once, and nothing else is there.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use File::Basename;
use Time::HiRes qw(usleep);

my $rounds = $ENV{KILLS} || 3;
my $clients = $ENV{CLIENTS} || 16;
my $accounts = 8;
my $races = dirname(__FILE__) . '/../races';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\nrestart_after_crash = off\nmax_connections = " . ($clients + 10) . "\n");
$node->start;

# psql ARGUMENTS...: what it prints, errors too
sub psql
{
	open my $out, '-|', 'sh', '-c', 'exec psql -XAtq -v ON_ERROR_STOP=1 "$@" 2>&1', 'psql', '-d', $node->connstr('postgres'), @_ or die;
	my $text = join '', <$out>;
	close $out;
	chomp $text;
	return $text;
}

# the processes whose parent is this one
sub children
{
	my ($parent) = @_;
	my @found;
	for my $file (glob '/proc/[0-9]*/stat')
	{
		open my $in, '<', $file or next;
		my $stat = <$in> // '';
		push @found, $1 if $stat =~ /^(\d+) \(.*\) \S (\d+) /s && $2 == $parent;
	}
	return @found;
}

sub verify { return psql('-v', 'crashed=true', '-f', "$races/verify.sql") }

is(psql('-v', "accounts=$accounts", '-o', '/dev/null', '-f', "$races/setup.sql"), '', 'the programmes are set up');
my ($acknowledged, $lost, $landed) = (0, 0, 0);
for my $round (1 .. $rounds)
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $first = 1 + ($round - 1) * ($clients + 1);
	my @pids;
	system_or_bail('perl', "$races/generate", $dir, $clients, 300 * $clients, $accounts, $first);
	for my $c (0 .. $clients - 1)
	{
		my $pid = fork();
		if ($pid == 0)
		{
			open STDOUT, '>', "$dir/$c.out";
			open STDERR, '>', '/dev/null';
			exec 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', "$dir/$c.sql";
		}
		push @pids, $pid;
	}
	usleep(50_000) until psql('-c', "SELECT count(*) FROM races.ready WHERE load = $first") >= $clients;
	usleep(300_000 + int rand 1_000_000);
	my $postmaster = $node->{_pid};
	kill 'KILL', $postmaster, children($postmaster);
	waitpid($_, 0) for @pids;
	for my $attempt (1 .. 50)
	{
		$node->{_pid} = undef;
		last if $node->start(fail_ok => 1);
		usleep(200_000);
	}
	system_or_bail('perl', "$races/collect", $dir);
	is(psql('-c', "\\copy races.issued FROM '$dir/issued'", '-c', "\\copy races.answer FROM '$dir/answer'"), '', "round $round: copied what was acknowledged");
	my $answers = psql('-c', "SELECT count(*) FROM races.answer WHERE client >= $first");
	cmp_ok($answers, '>', 100, "round $round: there was a load ($answers statements)");
	is(verify(), '', "round $round: what was acknowledged is there once, and nothing else");
	$acknowledged += $answers;

	# whoever had no answer asks again, with the key: then there is one effect, whether or not there was one
	my @again = split /\n/, psql('-c', "SELECT client, n FROM races.lost WHERE client >= $first ORDER BY 1");
	$landed += psql('-c', "SELECT count(DISTINCT (client, n)) FROM races.lost l JOIN races.issued i USING (client, n) JOIN races.effect e USING (kind, account, key) WHERE client >= $first AND NOT EXISTS (SELECT FROM races.issued o JOIN races.answer a USING (client, n) WHERE a.state = '00000' AND (o.kind, o.account, o.key) = (i.kind, i.account, i.key))");
	$lost += @again;
	my $self = $first + $clients;
	open my $sql, '>', "$dir/again.sql";
	for my $again (@again)
	{
		my ($client, $n) = split /\|/, $again;
		my $statement;
		open my $in, '<', "$dir/" . ($client - $first) . '.sql';
		while (<$in>) { last if /^\\echo = $client $n :/; $statement = $_ }
		print $sql "$statement\\echo = $self $client$n :SQLSTATE\n";
		psql('-c', "INSERT INTO races.issued SELECT $self, $client$n, kind, account, key, points, 'read committed' FROM races.issued WHERE client = $client AND n = $n");
	}
	close $sql;
	unlink glob "$dir/*.out";
	system('sh', '-c', 'psql -XAtq -d "$1" -f "$2/again.sql" >"$2/again.out" 2>/dev/null', 'sh', $node->connstr('postgres'), $dir);
	system_or_bail('perl', "$races/collect", $dir);
	psql('-c', "\\copy races.answer FROM '$dir/answer'");
	is(psql('-c', "SELECT count(*) FROM races.answer WHERE client = $self"), scalar(@again), "round $round: all " . @again . ' that had no answer ask again');
	is(verify(), '', "round $round: and have one effect");
}
note "$rounds kills, $acknowledged acknowledged statements, $lost without an answer, of which $landed had had their effect";
note psql('-f', "$races/report.sql");
$node->stop;
done_testing();
