# kill -9 of the server in the middle of a refresh, beside inserts: it goes on where it was, and what is kept is what is
# made from nothing.
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
my $tables = "'{product,purchase,return,part,day,part_day,pair_day,member,member_month,member_store,member_part,model}'::text[]";
$node->safe_psql('postgres', q{
	CREATE EXTENSION loyalty;
	SELECT loyalty.create_program('Crash');
	SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
	INSERT INTO loyalty.product (program_id, sku, category, brand) SELECT 1, 's' || n, 'c' || n % 5, 'b' || n % 3 FROM generate_series(1, 20) n;
	SELECT loyalty.enroll(1, 'm' || n) FROM generate_series(1, 200) n;
	CREATE SEQUENCE reference;
	CREATE FUNCTION buy(n int) RETURNS void LANGUAGE sql AS $$
		INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, reference)
			SELECT 1 + i % 200, timestamptz '2025-01-01' + make_interval(hours => (i * 37 % 8000)::int), 30,
				ARRAY[ROW('s' || 1 + i % 20, 1, NULL, 10, NULL), ROW('s' || 1 + i * 7 % 20, 1, NULL, 20, NULL)]::loyalty.line[], 'r' || i
			FROM (SELECT nextval('reference') AS i FROM generate_series(1, n)) x $$;
	SELECT buy(4000);
	CREATE TABLE kept (made text, name text, x jsonb);
});

# run a statement in a process of its own, which may die with the server
sub beside
{
	my ($sql) = @_;
	my $pid = fork();
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql or exit 1;
	}
	return $pid;
}

my $left = 0;
for my $round (1 .. 4)
{
	my @pids = (beside("CALL loyalty.refresh_analysis(40)"),
		beside("DO \$\$ BEGIN FOR i IN 1 .. 2000 LOOP PERFORM buy(1); COMMIT; END LOOP; END \$\$"));
	usleep(150000 + 150000 * $round);
	$node->stop('immediate');
	waitpid($_, 0) for @pids;
	$node->start;
	$left += $node->safe_psql('postgres', "SELECT count(*) FROM loyalty.analysis_run WHERE position IS NOT NULL");
	$node->safe_psql('postgres', "UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id % 97 = $round; SELECT buy(50)");
}
cmp_ok($left, '>', 0, "the server died in the middle of a refresh ($left of 4 times)");
is($node->safe_psql('postgres', 'SELECT * FROM loyalty.check()'), '', 'what is kept is consistent, however far it came');
$node->safe_psql('postgres', 'CALL loyalty.refresh_analysis(500)');
$node->safe_psql('postgres', 'CALL loyalty.refresh_analysis(500)');
my $keep = "DO \$\$ DECLARE n text; BEGIN FOREACH n IN ARRAY $tables LOOP EXECUTE format('INSERT INTO kept SELECT %L, %L, to_jsonb(x) FROM loyalty.analysis_%s x', 'MADE', n, n); END LOOP; END \$\$";
$node->safe_psql('postgres', $keep =~ s/MADE/grown/r);
$node->safe_psql('postgres', 'CALL loyalty.refresh_analysis(rebuild => true)');
$node->safe_psql('postgres', $keep =~ s/MADE/rebuilt/r);
is($node->safe_psql('postgres', "SELECT name, count(*) FROM ((SELECT name, x FROM kept WHERE made = 'grown' EXCEPT ALL SELECT name, x FROM kept WHERE made = 'rebuilt') UNION ALL (SELECT name, x FROM kept WHERE made = 'rebuilt' EXCEPT ALL SELECT name, x FROM kept WHERE made = 'grown')) d GROUP BY 1"),
	'', 'and equals what is made from nothing');
is($node->safe_psql('postgres', "SELECT (SELECT count(*) FROM loyalty.purchase WHERE status = 'completed') = (SELECT count(*) FROM loyalty.analysis_purchase)"), 't', 'every purchase is in');
is($node->safe_psql('postgres', 'SELECT * FROM loyalty.check()'), '', 'the books are whole');
$node->stop;
done_testing();
