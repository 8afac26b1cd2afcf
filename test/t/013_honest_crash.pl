# A load with nobody who cheats: batches, aborts, savepoints, refusals, deadlocks and a server that is killed. Nothing that
# looks for forgers finds one, while the load runs and after it; every checkpoint that was kept is found in the books.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use File::Basename;
use Time::HiRes qw(usleep time);

my $goal = $ENV{ENTRIES} || 10_000;
my $clients = $ENV{CLIENTS} && $ENV{CLIENTS} < 32 ? $ENV{CLIENTS} : 32;
my $accounts = 2000;
my $seconds = $goal > 50_000 ? 20 : 3;
my $here = dirname(__FILE__);
my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\nrestart_after_crash = off\nshared_buffers = 256MB\nmax_wal_size = 4GB\nloyalty.key_file = '$dir/keys'\nmax_connections = " . ($clients + 10) . "\n");
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

# one value of one query
sub ask { return psql('-c', $_[0]) }

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

# write a file
sub put
{
	my ($name, $text) = @_;
	open my $file, '>', "$dir/$name" or die;
	print $file $text;
	close $file;
	chmod 0600, "$dir/$name";
	return "$dir/$name";
}

is(psql('-v', "accounts=$accounts", '-o', '/dev/null', '-f', "$here/../races/honest.sql"), '', 'the programme is set up');
put('keys', ask("SELECT loyalty.make_key(1, 'blake2b')") . "\n" . ask('SELECT loyalty.make_key(2)') . "\n");
my (@kept, %alarm);
my $gone = qr{server closed the connection|terminating connection|connection to server|server process};

# whoever looks: what they find is an alarm
sub look
{
	my ($when, $query) = @_;
	my $found = ask($query);
	# the server's end is no finding
	return if $found eq '' || $found =~ $gone;
	$alarm{"$when: $query: " . substr($found, 0, 300)}++;
}

# seal, and keep the checkpoint
sub seal
{
	my $notice = psql('-c', 'SET client_min_messages = warning', '-c', 'CALL loyalty.seal(500)');
	$alarm{"seal: $notice"}++ if $notice =~ /WARNING|ERROR/ && $notice !~ $gone;
	my $checkpoint = ask('SELECT loyalty.export_checkpoint()');
	push @kept, $checkpoint if $checkpoint =~ /^\{.*\}$/;
}

my ($round, $kills, $looks) = (0, 0, 0);
for (my $entries = 0; $entries < $goal || $round < 3; $entries = ask('SELECT count(*) FROM loyalty.entry'))
{
	$round++;
	my $crash = $round % 2;
	my $until = time + $seconds;
	my $pid = fork();
	if ($pid == 0)
	{
		open STDOUT, '>', "$dir/pgbench.$round";
		open STDERR, '>&', \*STDOUT;
		# the load goes on until it is killed; deadlocks and broken serializations are tried again
		exec 'pgbench', '-n', '-c', $clients, '-j', 2, '-T', $seconds + ($crash ? 100 : 0), '--max-tries=50', '-D', "accounts=$accounts",
		  map({ ('-f', "$here/../races/honest_$_") } 'buy.pgbench@6', 'act.pgbench@6', 'abort.pgbench@1', 'savepoint.pgbench@2'), $node->connstr('postgres');
	}
	# at least once, and while the load runs
	do
	{
		seal();
		look("round $round", 'SELECT * FROM loyalty.verify(incremental => true)');
		look("round $round", 'SELECT * FROM loyalty.verify()');
		$looks += 2;
	} while (time < $until);
	if ($crash)
	{
		my $postmaster = $node->{_pid};
		kill 'KILL', $postmaster, children($postmaster);
		waitpid($pid, 0);
		for my $attempt (1 .. 50)
		{
			$node->{_pid} = undef;
			last if $node->start(fail_ok => 1);
			usleep(200_000);
		}
		$kills++;
	}
	else
	{
		waitpid($pid, 0);
		is($?, 0, "round $round: no client was refused what it should have had") or diag(slurp_file("$dir/pgbench.$round"));
	}
	look("after round $round", $_) for 'SELECT * FROM loyalty.verify()', 'SELECT * FROM loyalty.verify(incremental => true)', "SELECT * FROM loyalty.verify_sealed('$kept[rand @kept]')", 'SELECT * FROM loyalty.verify_sealed()';
	$looks += 4;
}
seal();
look('at the end', $_) for 'SELECT * FROM loyalty.check()', map("SELECT * FROM loyalty.verify_sealed('$_')", @kept > 10 ? @kept[ map { $_ * $#kept / 9 } 0 .. 9 ] : @kept);
is(join("\n", sort keys %alarm), '', 'no false alarm');

# an auditor without a server finds the kept checkpoints in the last one
my $public = ask(q{SELECT string_agg(key_id || ':' || encode(public_key, 'hex'), ',') FROM loyalty.voucher_keys()});
my ($old) = $kept[0] =~ /"size": (\d+)/;
my $verify = "python3 $here/../till/verify_proof.py $public";
my $kept = put('kept', $kept[0]);
for my $proof ("consistency_proof($old)", 'balance_proof(1)', 'balance_proof(1000)', map("inclusion_proof($_, (SELECT seq / 2 + 1 FROM loyalty.account WHERE account_id = $_))", 1, 7, 1999))
{
	my $file = put('proof', ask("SELECT loyalty.$proof"));
	my $judgement = `$verify $file --kept $kept 2>&1`;
	like($judgement, qr/"good": true/, "$proof is good");
}
my ($entries, $aborted, $leaves) = map { ask($_) } 'SELECT count(*) FROM loyalty.entry', 'SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()', 'SELECT count(*) FROM loyalty.checkpoint_leaf';
my $summary = "$entries honest entries of $clients clients, $kills kills, " . scalar(@kept) . " checkpoints kept of $leaves leaves; looked $looks times";
cmp_ok($entries, '>=', $goal, $summary);
note $summary;
$node->stop;
done_testing();
