# Folding what is bought together survives a crash at any point: what is kept afterwards is what is counted anew.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('fold');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nautovacuum = off\ntimezone = 'UTC'\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION loyalty;
	SELECT loyalty.create_program('Fold', time_zone => 'UTC', currency => 'EUR');
	SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
	SELECT loyalty.enroll(1, 'm' || i) FROM generate_series(1, 50) i;
	CREATE FUNCTION buy(n integer) RETURNS void LANGUAGE sql AS $$
		INSERT INTO loyalty.purchase (member_id, amount, occurred_at, lines)
			SELECT 1 + i % 50, 10, now() - make_interval(hours => i % 400), l.lines FROM generate_series(1, n) i
			CROSS JOIN LATERAL (SELECT array_agg(ROW('a' || (i * j * j) % 37, 1, 2, NULL, NULL)::loyalty.line) AS lines FROM generate_series(1, 5) j) l $$;
});
my $broken = q{SELECT count(*) FROM loyalty.copurchase_day d FULL JOIN
	(SELECT 1 AS program_id, p.occurred_at::date AS day, loyalty.copurchase(loyalty.kept_lines(p)) AS c FROM loyalty.purchase p GROUP BY 2) x USING (program_id, day)
	WHERE d.baskets::text IS DISTINCT FROM x.c::text};

foreach my $round (1 .. 4)
{
	$node->safe_psql('postgres', 'SELECT buy(300)');
	$node->safe_psql('postgres', 'INSERT INTO loyalty.purchase_return (purchase_id, occurred_at) SELECT purchase_id, now() FROM loyalty.purchase p WHERE random() < 0.05 AND NOT EXISTS (SELECT FROM loyalty.returned r WHERE r.purchase_id = p.purchase_id)');
	# the server dies in the middle of a fold beside inserts
	my $fold = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', 'CALL loyalty.fold_copurchase(days => 1)' ], '>', \my $out, '2>', \my $err);
	my $insert = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', 'SELECT buy(100)' ], '>', \my $out2, '2>', \my $err2);
	select(undef, undef, undef, 0.1 * $round);
	$node->stop('immediate');
	eval { $fold->finish }; eval { $insert->finish };
	$node->start;
	$node->safe_psql('postgres', 'CALL loyalty.fold_copurchase(days => 2)');
	is($node->safe_psql('postgres', $broken), '0', "round $round: days are what is counted anew");
	is($node->safe_psql('postgres', 'SELECT invariant, detail FROM loyalty.check()'), '', "round $round: check() is clean");
}
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM loyalty.copurchase_day'), '>', 10, 'there were days');
$node->stop;
done_testing();
