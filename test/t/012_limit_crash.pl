# kill -9 of every process of the server while many sessions race for the budget of one card after the other: what limits
# remember is what is in the books, nothing was admitted beyond them, and they go on where they were.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use File::Basename;
use Time::HiRes qw(usleep);

my $rounds = $ENV{KILLS} || 3;
my $clients = $ENV{CLIENTS} || 16;
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

is(psql('-v', "clients=$clients", '-v', 'races=1000000', '-v', 'pace=200', '-o', '/dev/null', '-f', "$races/limits.sql"), '', 'the limits are set up');
psql('-c', 'CREATE TABLE races.answer (reference text, race integer, at timestamptz, amount bigint, state text)');
my $acknowledged = 0;
for my $round (1 .. $rounds)
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my @pids;
	psql('-c', 'TRUNCATE races.ready');
	for my $c (1 .. $clients)
	{
		system_or_bail('sh', '-c', 'perl "$1/limits_client" "$2" 2000 "$3" >"$4/$2.sql"', 'sh', $races, $c, 1 + 2000 * $round, $dir);
		my $pid = fork();
		if ($pid == 0)
		{
			open STDOUT, '>', "$dir/$c.out";
			open STDERR, '>', '/dev/null';
			exec 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', "$dir/$c.sql";
		}
		push @pids, $pid;
	}
	usleep(50_000) until psql('-c', 'SELECT count(*) FROM races.ready') >= $clients;
	usleep(500_000 + int rand 1_000_000);
	my $postmaster = $node->{_pid};
	kill 'KILL', $postmaster, children($postmaster);
	waitpid($_, 0) for @pids;
	for my $attempt (1 .. 50)
	{
		$node->{_pid} = undef;
		last if $node->start(fail_ok => 1);
		usleep(200_000);
	}
	open my $answer, '>', "$dir/answer";
	for my $c (1 .. $clients)
	{
		open my $in, '<', "$dir/$c.out" or next;
		# the statement under way has no answer: its line may name the state of one that the server's end broke off
		while (<$in>) { print $answer "$1\t$2\t$3\t$4\t$5\n" if /^(\d+\.\d+) (\d+) '([^']+)' (\d+) (00000|LY\d+|40\w+)$/ }
	}
	close $answer;
	is(psql('-c', "\\copy races.answer FROM '$dir/answer'"), '', "round $round: copied what was acknowledged");
	my $answers = psql('-c', 'SELECT count(*) FROM races.answer') - $acknowledged;
	cmp_ok($answers, '>', 50, "round $round: there was a load ($answers purchases)");
	$acknowledged += $answers;
	is(psql('-v', 'crashed=true', '-f', "$races/limits_verify.sql"), '', "round $round: the counters are a replay of what is in the books, and these are whole");
	psql('-o', "$dir/log", '-f', "$races/limits_log.sql");
	is(`perl $races/limits_oracle <$dir/log`, '', "round $round: nothing was admitted beyond a limit, and nothing refused within it");
}
note "$rounds kills, $acknowledged answers";
$node->stop;
done_testing();
