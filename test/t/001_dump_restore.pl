# A dump and restore keeps everything, awards nothing twice, and goes on where it was.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', q{
	CREATE EXTENSION loyalty;
	SELECT loyalty.create_program('Club', hold_days => 3);
	SELECT loyalty.add_tier(1, 'A', 0, 'spend'), loyalty.add_tier(1, 'B', 100, 'spend', 2);
	SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
	SELECT loyalty.add_rule(1, 'capped', 'purchase', 'bonus', 'purchase.amount', 'purchase.store = ''capped''', caps => '{"month": 50}', budget => 120);
	SELECT loyalty.enroll(1, 'm' || i, '2024-01-01') FROM generate_series(1, 20) i;
	INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference, lines) SELECT 1 + i % 20, '2024-02-01', i, 'r' || i,
		loyalty.lines(jsonb_build_array(jsonb_build_object('sku', 'S', 'amount', i))) FROM generate_series(1, 200) i;
	INSERT INTO loyalty.purchase (member_id, occurred_at, amount, store) SELECT m, '2024-03-01', 70, 'capped' FROM generate_series(1, 3) m;
	INSERT INTO loyalty.activity (member_id, kind) VALUES (1, 'hello');
	UPDATE loyalty.purchase SET status = 'void' WHERE reference = 'r7';
	SELECT loyalty.adjust(2, 7, 'kind', key => 'k');
	CREATE TABLE orders (id int PRIMARY KEY, who text, total numeric);
	SELECT loyalty.attach('orders', 'purchase', '{"member": "who", "reference": "id::text", "amount": "total"}', 1);
	INSERT INTO orders VALUES (1, 'm3', 30);
	SELECT loyalty.adjust(m, 100, 'Start') FROM generate_series(3, 4) m;
	SELECT loyalty.add_reward(1, 'mug', 'product', 5, sku => 'MUG', stock => 100, member_limit => 50), loyalty.add_reward(1, 'badge', 'badge', NULL);
	SELECT loyalty.add_stamp_card(1, 'card', 'units', 3, 'badge', valid_from => '2024-01-01');
	SELECT loyalty.add_coupon_pool(1, 'codes', 'service', uses => 'multi', max_uses => 50), loyalty.import_coupons(1, 'codes', '{CODE}');
	SELECT loyalty.claim(3, 'mug', 'mug'), loyalty.claim(3, 'badge', 'full', card => 'card'), loyalty.use_coupon('code', 3, 'use'), loyalty.claim(4, 'mug', 'undone');
	SELECT loyalty.undo_claim(4, 'undone', 'why not');
	SELECT loyalty.add_challenge(1, 'ten', 'visits', 10, 11, 'month', reward => 'badge', active_from => '2024-01-01'), loyalty.add_challenge(1, 'club', 'spend', 10, badge => 'Club', opt_in => true);
	SELECT loyalty.join_challenge(5, 2);
	CALL loyalty.count_challenges(1);
	INSERT INTO loyalty.purchase (member_id, amount) VALUES (5, 20);
	INSERT INTO loyalty.purchase_return (purchase_reference) VALUES ('r22');
});
my $everything = q{
	SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM (
		SELECT to_jsonb(e)::text FROM loyalty.entry e UNION ALL SELECT to_jsonb(a)::text FROM loyalty.account a
		UNION ALL SELECT to_jsonb(p)::text FROM loyalty.purchase p UNION ALL SELECT to_jsonb(c)::text FROM loyalty.tier_change c
		UNION ALL SELECT to_jsonb(r)::text FROM loyalty.rule_version r UNION ALL SELECT to_jsonb(m)::text FROM loyalty.member m
		UNION ALL SELECT to_jsonb(x)::text FROM loyalty.attachment x UNION ALL SELECT to_jsonb(w)::text FROM loyalty.reward w
		UNION ALL SELECT to_jsonb(l)::text FROM loyalty.claim l UNION ALL SELECT to_jsonb(h)::text FROM loyalty.stock_share h
		UNION ALL SELECT to_jsonb(n)::text FROM loyalty.reward_taken n UNION ALL SELECT to_jsonb(k)::text FROM loyalty.coupon k
		UNION ALL SELECT to_jsonb(o)::text FROM loyalty.coupon_pool o UNION ALL SELECT to_jsonb(u)::text FROM loyalty.coupon_use u
		UNION ALL SELECT to_jsonb(v)::text FROM loyalty.coupon_taken v UNION ALL SELECT to_jsonb(d)::text FROM loyalty.stamp_card d
		UNION ALL SELECT to_jsonb(s)::text FROM loyalty.stamp s UNION ALL SELECT to_jsonb(g)::text FROM loyalty.stamp_sheet g
		UNION ALL SELECT to_jsonb(b)::text FROM loyalty.challenge b UNION ALL SELECT to_jsonb(f)::text FROM loyalty.challenge_member f
		UNION ALL SELECT to_jsonb(i)::text FROM loyalty.challenge_item i UNION ALL SELECT to_jsonb(j)::text FROM loyalty.challenge_progress j
		UNION ALL SELECT to_jsonb(q)::text FROM loyalty.challenge_grant q UNION ALL SELECT to_jsonb(cs)::text FROM loyalty.cap_state cs
		UNION ALL SELECT to_jsonb(cu)::text FROM loyalty.cap_use cu UNION ALL SELECT to_jsonb(rb)::text FROM loyalty.rule_budget rb) t};
my $before = $node->safe_psql('shop', $everything);
is($node->safe_psql('shop', q{SELECT count(*), count(*) FILTER (WHERE granted), count(claim_id) FROM loyalty.challenge_grant}), '20|19|18', 'challenges were met, and one was taken back');
for my $format ('plain', 'custom')
{
	my $file = $node->backup_dir . "/dump.$format";
	$node->command_ok([ 'pg_dump', "--format=$format", '-f', $file, $node->connstr('shop') ], "pg_dump, $format");
	$node->safe_psql('postgres', "CREATE DATABASE restored_$format");
	if ($format eq 'plain')
	{
		$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $file, $node->connstr("restored_$format") ], 'psql restores it');
	}
	else
	{
		$node->command_ok([ 'pg_restore', '-j', '2', '--exit-on-error', '-d', $node->connstr("restored_$format"), $file ], 'pg_restore restores it, in parallel');
	}
	is($node->safe_psql("restored_$format", $everything), $before, "everything is there and nothing twice, $format");
	is($node->safe_psql("restored_$format", 'SELECT * FROM loyalty.check()'), '', "the books are whole, $format");
	is($node->safe_psql("restored_$format", q{SELECT spent, "left" FROM loyalty.budget_status}), '120|0', "a budget stays used up, $format");
	$node->safe_psql("restored_$format", q{
		SELECT loyalty.enroll(1, 'new');
		INSERT INTO loyalty.purchase (member_id, amount) SELECT member_id, 5 FROM loyalty.member;
		INSERT INTO orders VALUES (2, 'new', 11);
		SELECT loyalty.add_rule(1, 'another', 'purchase', 'bonus', '1');
		INSERT INTO loyalty.purchase (member_id, amount) SELECT member_id, 5 FROM loyalty.member;
		SELECT loyalty.claim(3, 'mug', 'mug'), loyalty.claim(3, 'mug', 'mug 2'), loyalty.claim(3, 'badge', 'full 2', card => 'card'), loyalty.use_coupon('CODE', 3, 'use 2');
		SELECT loyalty.add_reward(1, 'cup', 'product', 5, sku => 'CUP', stock => 1), loyalty.add_coupon_pool(1, 'more', 'service'), loyalty.make_coupons(1, 'more', 2);
		SELECT loyalty.add_stamp_card(1, 'another', 'visits', 3, 'cup'), loyalty.claim(3, 'cup', 'cup');
		INSERT INTO loyalty.purchase_return (purchase_reference) VALUES ('r42');
		SELECT loyalty.add_challenge(1, 'a day', 'days', 1, 3, 'day');
		INSERT INTO loyalty.purchase (member_id, amount) SELECT member_id, 5 FROM loyalty.member;
		CALL loyalty.count_challenges(1);
	});
	is($node->safe_psql("restored_$format", 'SELECT * FROM loyalty.check()'), '', "and it goes on, sequences included, $format");
}
# a table that a dump leaves out costs the others nothing
$node->safe_psql('shop', q{
	CREATE TABLE sales (id int PRIMARY KEY, who text, total numeric);
	SELECT loyalty.attach('sales', 'purchase', '{"member": "who", "reference": "id::text", "amount": "total"}', 1);
	CREATE TABLE dropped (id int PRIMARY KEY, who text, total numeric);
	SELECT loyalty.attach('dropped', 'purchase', '{"member": "who", "reference": "id::text", "amount": "total"}', 1);
	DROP TABLE dropped;
});
my $partial = $node->backup_dir . '/dump.partial';
$node->command_ok([ 'pg_dump', '--exclude-table=orders', '-f', $partial, $node->connstr('shop') ], 'pg_dump without an attached table');
$node->safe_psql('postgres', 'CREATE DATABASE restored_partial');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $partial, $node->connstr('restored_partial') ], 'psql restores it');
$node->safe_psql('restored_partial', q{INSERT INTO sales VALUES (1, 'm3', 30)});
is($node->safe_psql('restored_partial', q{SELECT count(*) FROM loyalty.purchase WHERE source = 'public.sales'}), '1', 'the other table is attached');
is($node->safe_psql('restored_partial', 'SELECT detail FROM loyalty.check() ORDER BY 1'), join("\n", map { qq{the table of source "public.$_" is gone; loyalty.detach_source lets go of it} } qw(dropped orders)), 'check() names what is not there');
$node->safe_psql('restored_partial', q{SELECT loyalty.detach_source(source) FROM loyalty.attachment WHERE source <> 'public.sales'});
is($node->safe_psql('restored_partial', 'SELECT * FROM loyalty.check()'), '', 'and lets go of it');
$node->stop;
done_testing();
