# The detection matrix: every column of entry and account, as the catalogue has them, times what can be done to it by who may write to the tables and has no key; all is found, and the first bad row is named.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\nautovacuum = off\nloyalty.key_file = '$dir/keys'\n");
sub put
{
	my ($name, $text) = @_;
	open my $file, '>', "$dir/$name" or die;
	print $file $text;
	close $file;
	chmod 0600, "$dir/$name";
	return "$dir/$name";
}
my $keys = '1 blake2b ' . '1a' x 32 . " chaining\n2 blake2b " . '2b' x 32 . " verifying\n3 ed25519 " . '3c' x 32 . " signing\n";
put('keys', $keys);
$node->start;

# one value of one query
sub ask { return $node->safe_psql('postgres', $_[0]); }

# ---- books in which every column has more than one value
ask(<<'END');
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Club', hold_days => 5), loyalty.create_program('Other'), loyalty.add_wallet(1, 'stars');
SELECT loyalty.add_tier(1, 'Silver', 100, 'spend'), loyalty.add_tier(1, 'Gold', 300, 'spend');
SELECT loyalty.add_rule(p, 'base', 'purchase', 'base', 'purchase.amount') FROM generate_series(1, 3) p;
SELECT loyalty.enroll(1 + i / 10, 'm' || i, now() - interval '100 days' - i * interval '1 hour') FROM generate_series(1, 12) i;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT 1 + i % 12, now() - interval '80 days' + i * interval '1 hour', 20 + i FROM generate_series(1, 60) i;
SELECT loyalty.adjust(1, 50, 'gift', 'gift 1'), loyalty.adjust(1, 60, 'another', 'gift 2'), loyalty.redeem(1, 10, 'spent 1'), loyalty.adjust(2, 70, 'for two', 'gift 3');
CREATE ROLE clerk; SELECT loyalty.grant_admin('clerk'); SET SESSION AUTHORIZATION clerk; SELECT loyalty.adjust(1, 7, 'by a clerk', 'clerk 1'), loyalty.adjust(3, 8, 'by a clerk', 'clerk 2'); RESET SESSION AUTHORIZATION;
SELECT loyalty.hold(1, 5, 'held', ttl => interval '30 days'), loyalty.set_tier(2, 'Gold', '2999-01-01', 'friend'), loyalty.set_member_status(4, 'frozen'), loyalty.close_member(5), loyalty.merge_members(6, 7, 'merge 1');
SELECT loyalty.create_household(1, 'home');
SELECT loyalty.join_household(8, (SELECT max(member_id) FROM loyalty.member)), loyalty.join_household(9, (SELECT max(member_id) FROM loyalty.member));
SELECT loyalty.block_in_household(9, true);
SELECT loyalty.leave_household(8);
CALL loyalty.seal();
CREATE SCHEMA kept;
CREATE TABLE kept.account AS TABLE loyalty.account;
CREATE TABLE kept.entry AS TABLE loyalty.entry;
CREATE TABLE kept.checkpoint AS TABLE loyalty.checkpoint;
CREATE TABLE kept.checkpoint_leaf AS TABLE loyalty.checkpoint_leaf;
CREATE TABLE kept.checkpoint_node AS TABLE loyalty.checkpoint_node;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT 1 + i % 3, now() - interval '2 days' + i * interval '1 hour', 300 + i FROM generate_series(1, 9) i;
SELECT loyalty.release(1, 'held'), loyalty.hold(2, 6, 'held 2', ttl => interval '30 days');
CALL loyalty.seal();
INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 7), (2, 8), (1, 9);
END
my $public = ask(q{SELECT string_agg(key_id || ':' || encode(public_key, 'hex'), ',') FROM loyalty.voucher_keys()});
my $first = put('first', ask(q{SELECT loyalty.export_checkpoint((SELECT max(size) FROM kept.checkpoint))}));
my $last = put('last', ask('SELECT loyalty.export_checkpoint()'));
is(ask("SELECT account_id, seq, problem FROM loyalty.verify() UNION ALL SELECT account_id, seq, problem FROM loyalty.verify_sealed(pg_read_file('$last')::jsonb) UNION ALL SELECT account_id, 0, invariant FROM loyalty.check()"), '', 'nothing is wrong to begin with');

# what is found of a damage, and who it is blamed on; undone again
ask(<<"END");
CREATE FUNCTION public.detect(damage text) RETURNS text LANGUAGE plpgsql AS \$\$
DECLARE
	n bigint;
	said text;
BEGIN
	SET LOCAL session_replication_role = replica;
	BEGIN
		EXECUTE damage;
		GET DIAGNOSTICS n = ROW_COUNT;
	EXCEPTION WHEN integrity_constraint_violation OR unique_violation OR check_violation OR not_null_violation THEN
		RAISE EXCEPTION 'refused' USING ERRCODE = 'ZZ001';
	END;
	SET LOCAL session_replication_role = origin;
	IF n = 0 THEN
		RAISE EXCEPTION 'NO DAMAGE' USING ERRCODE = 'ZZ001';
	END IF;
	SELECT string_agg(format('%s/%s %s', account_id, seq, problem), ', ' ORDER BY account_id, seq) INTO said FROM loyalty.verify();
	IF said IS NULL THEN
		SELECT string_agg(concat(account_id, '/', seq, ' ', problem), ', ' ORDER BY account_id, seq) INTO said FROM loyalty.verify_sealed(pg_read_file('$last')::jsonb);
	END IF;
	IF said IS NULL THEN
		BEGIN
			SELECT 'check: ' || string_agg(DISTINCT concat(account_id, ' ', invariant), ', ') INTO said FROM loyalty.check();
		EXCEPTION WHEN OTHERS THEN
			said := 'check: ' || SQLERRM;
		END;
	END IF;
	RAISE EXCEPTION '%', coalesce(said, 'NOTHING') USING ERRCODE = 'ZZ001';
EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
	RETURN SQLERRM;
END \$\$;
-- another value for a column; a null becomes one that is not
CREATE FUNCTION public.other(name text, type text) RETURNS text LANGUAGE sql AS \$\$
	SELECT CASE type WHEN 'bigint' THEN format('coalesce(%I, 0) + 1000', name) WHEN 'integer' THEN format('coalesce(%I, 0) + 1', name) WHEN 'text' THEN format('coalesce(%I, '''') || ''x''', name) WHEN 'name' THEN format('(%I || ''x'')::name', name)
		WHEN 'timestamp with time zone' THEN format('coalesce(%I, now()) + interval ''1 microsecond''', name) WHEN 'date' THEN format('coalesce(%I, ''2030-01-01'') + 1', name) WHEN 'boolean' THEN format('NOT %I', name) WHEN 'numeric' THEN format('coalesce(%I, 0) + 1', name)
		WHEN 'bytea' THEN format('CASE WHEN coalesce(length(%1\$I), 0) = 0 THEN ''\\x00''::bytea ELSE set_bit(%1\$I, 70 %% (8 * length(%1\$I)), 1 - get_bit(%1\$I, 70 %% (8 * length(%1\$I)))) END', name)
		WHEN 'jsonb' THEN format('coalesce(%I, ''{}'') || ''{"x": 1}''', name) WHEN 'loyalty.lots' THEN format('%I OPERATOR(loyalty.+) ''{[2030-01-01,)=1}''', name) WHEN 'loyalty.tally' THEN format('%I OPERATOR(loyalty.+) ''{2030-01: visits=1}''', name)
		WHEN 'loyalty.hold[]' THEN 'ARRAY[ROW(77, ''forged'', now(), now() + interval ''1 year'', ''{[,)=1000000}'', NULL)]::loyalty.hold[]' WHEN 'bigint[]' THEN 'ARRAY[7]::bigint[]' END
\$\$;
CREATE VIEW public.cell AS SELECT c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
	WHERE c.oid IN ('loyalty.entry'::regclass, 'loyalty.account'::regclass) AND a.attnum > 0 AND NOT a.attisdropped;
END

# name, damage and the first rows that it touches of each cell; the columns come from the catalogue
sub cells { return map { [ split /\t/, $_, 3 ] } grep { /\t/ } split /\n/, ask($_[0]); }
# looks at cells: none is to pass unseen, but for those that are known; the blame is to lie where the damage is
sub look
{
	my ($what, $pattern, $known, @cells) = @_;
	my @bad;
	for my $cell (@cells)
	{
		my ($name, $blame, $damage) = @$cell;
		if (!$damage) { push @bad, "$name: no damage is known for its type or values"; next; }
		my $said = ask("SELECT public.detect(\$damage\$$damage\$damage\$)");
		note("$what of $name: $said");
		next if $said eq 'refused' || $known->{$name} && $said eq 'NOTHING';
		push @bad, "$name: $said, and not $blame" if $said !~ $pattern || $said =~ /^NO/ || $said !~ /\b\Q$blame\E\b/;
	}
	is(join("\n", @bad), '', "$what of " . @cells . ' columns');
	return;
}
# what no entry says and no table repeats; doc/chain.md says so
my %unsaid = map { $_ => 1 } 'household_blocked', 'left_households';
my $tab = q{chr(9)};
my $is_key = q{attname IN ('account_id', 'seq')};
my $entry = 'account_id = 1 AND seq = 3';
look('entry: flip', qr/^1\/3 /, {}, cells("SELECT concat(attname, $tab, '1/3', $tab, 'UPDATE loyalty.entry SET ' || quote_ident(attname) || ' = ' || public.other(attname, type) || ' WHERE $entry') FROM cell WHERE relname = 'entry' ORDER BY attnum"));
look('entry: null', qr/^1\//, {}, cells("SELECT concat(c.attname, $tab, '1/' || v.seq, $tab, format('UPDATE loyalty.entry SET %I = NULL WHERE account_id = 1 AND seq = %s', c.attname, v.seq)) FROM cell c, LATERAL (SELECT min(seq) AS seq FROM loyalty.entry e WHERE account_id = 1 AND to_jsonb(e) ->> c.attname IS NOT NULL) v
	WHERE relname = 'entry' AND NOT c.attnotnull ORDER BY attnum"));
# with the nearest two rows that differ
my $two = "SELECT x.account_id AS xa, x.seq AS xs, y.account_id AS ya, y.seq AS ys FROM loyalty.entry x JOIN loyalty.entry y ON %s AND (to_jsonb(x) -> c.attname) IS DISTINCT FROM (to_jsonb(y) -> c.attname) AND (NOT c.attnotnull OR to_jsonb(x) ->> c.attname IS NOT NULL) ORDER BY x.account_id, x.seq, y.account_id, y.seq LIMIT 1";
my $swap = "format('WITH v AS (SELECT e.account_id, e.seq, e.%1\$I AS value FROM loyalty.entry e WHERE (account_id, seq) IN ((%2\$s, %3\$s), (%4\$s, %5\$s))) UPDATE loyalty.entry e SET %1\$I = v.value FROM v WHERE (e.account_id, e.seq) IN ((%2\$s, %3\$s), (%4\$s, %5\$s)) AND (v.account_id, v.seq) IN ((%2\$s, %3\$s), (%4\$s, %5\$s)) AND (v.account_id, v.seq) <> (e.account_id, e.seq)', c.attname, p.xa, p.xs, p.ya, p.ys)";
look('entry: swap within an account', qr/^\d+\/\d+ /, {}, cells("SELECT concat(c.attname, $tab, p.xa || '/' || p.xs, $tab, CASE WHEN p.xa > 0 THEN $swap END) FROM cell c LEFT JOIN LATERAL (" . sprintf($two, 'x.account_id = y.account_id AND x.seq < y.seq') . ") p ON true WHERE relname = 'entry' AND NOT $is_key ORDER BY attnum"));
look('entry: swap between accounts', qr/^\d+\/\d+ /, {}, cells("SELECT concat(c.attname, $tab, p.xa || '/' || p.xs, $tab, CASE WHEN p.xa > 0 THEN $swap END) FROM cell c LEFT JOIN LATERAL (" . sprintf($two, 'x.account_id < y.account_id') . ") p ON true WHERE relname = 'entry' AND NOT $is_key ORDER BY attnum"));
look('account: flip', qr/./, \%unsaid, cells("SELECT concat(attname, $tab, CASE WHEN attname = 'account_id' THEN '1' ELSE '2' END, $tab, format('UPDATE loyalty.account SET %I = %s WHERE account_id = %s', attname, public.other(attname, type), CASE WHEN attname = 'account_id' THEN 1 ELSE 2 END)) FROM cell WHERE relname = 'account' ORDER BY attnum"));
look('account: null', qr/./, { %unsaid, tier_pinned => 1, holds => 1 }, cells("SELECT concat(c.attname, $tab, v.account_id, $tab, format('UPDATE loyalty.account SET %I = NULL WHERE account_id = %s', c.attname, v.account_id)) FROM cell c, LATERAL (SELECT min(account_id) AS account_id FROM loyalty.account a WHERE to_jsonb(a) ->> c.attname IS NOT NULL) v
	WHERE relname = 'account' AND NOT c.attnotnull AND v.account_id IS NOT NULL ORDER BY attnum"));
my $pair = "SELECT x.account_id AS xa, y.account_id AS ya FROM loyalty.account x JOIN loyalty.account y ON x.account_id < y.account_id AND x.account_id < 100 AND y.account_id < 100 AND (to_jsonb(x) -> c.attname) IS DISTINCT FROM (to_jsonb(y) -> c.attname) ORDER BY x.account_id, y.account_id LIMIT 1";
look('account: swap', qr/./, \%unsaid, cells("SELECT concat(c.attname, $tab, p.xa, $tab, CASE WHEN p.xa > 0 THEN format('WITH v AS (SELECT a.account_id, a.%1\$I AS value FROM loyalty.account a WHERE account_id IN (%2\$s, %3\$s)) UPDATE loyalty.account a SET %1\$I = v.value FROM v WHERE a.account_id IN (%2\$s, %3\$s) AND v.account_id <> a.account_id', c.attname, p.xa, p.ya) END)
	FROM cell c LEFT JOIN LATERAL ($pair) p ON true WHERE relname = 'account' AND c.attname <> 'account_id' ORDER BY attnum"));
look('account: an old value', qr/./, \%unsaid, cells("SELECT concat(c.attname, $tab, o.account_id, $tab, format('UPDATE loyalty.account a SET %1\$I = k.%1\$I FROM kept.account k WHERE k.account_id = a.account_id AND a.account_id = %2\$s', c.attname, o.account_id))
	FROM cell c JOIN LATERAL (SELECT a.account_id FROM loyalty.account a JOIN kept.account k USING (account_id) WHERE (to_jsonb(a) -> c.attname) IS DISTINCT FROM (to_jsonb(k) -> c.attname) ORDER BY 1 LIMIT 1) o ON true WHERE relname = 'account' ORDER BY attnum"));

# ---- whole rows
my $n = ask('SELECT seq FROM loyalty.account WHERE account_id = 1');
my $everything = join '; ', map { "DELETE FROM loyalty.$_; INSERT INTO loyalty.$_ OVERRIDING SYSTEM VALUE SELECT * FROM kept.$_" } 'entry', 'account';
my @columns = split /\n/, ask(q{SELECT quote_ident(attname) FROM cell WHERE relname = 'entry' ORDER BY attnum});
sub forged { my ($seq) = @_; my $list = join ', ', @columns; return "INSERT INTO loyalty.entry ($list) SELECT " . join(', ', map { $_ eq 'seq' ? $seq : /^"?key"?$/ ? "'forged'" : $_ } @columns) . " FROM loyalty.entry WHERE account_id = 1 AND seq = 3"; }
my $follow = sub { my ($seq) = @_; return "UPDATE loyalty.account a SET seq = $seq, head = (SELECT hash FROM loyalty.entry e WHERE e.account_id = 1 AND e.seq = $seq), lots = (SELECT loyalty.sum(e.lots) FROM loyalty.entry e WHERE e.account_id = 1), tally = (SELECT loyalty.sum(e.tally) FROM loyalty.entry e WHERE e.account_id = 1 AND e.tally IS NOT NULL), last_event_at = (SELECT max(occurred_at) FROM loyalty.entry e WHERE e.account_id = 1), holds = NULL WHERE account_id = 1"; };
my %row = (
	'1 delete the first' => [ '1/1', 'DELETE FROM loyalty.entry WHERE account_id = 1 AND seq = 1' ],
	'2 delete one in the middle' => [ '1/3', 'DELETE FROM loyalty.entry WHERE account_id = 1 AND seq = 3' ],
	'3 delete one and close the ranks' => [ '1/3', 'DELETE FROM loyalty.entry WHERE account_id = 1 AND seq = 3; UPDATE loyalty.entry SET seq = -seq WHERE account_id = 1 AND seq > 3; UPDATE loyalty.entry SET seq = -seq - 1 WHERE account_id = 1 AND seq < 0' ],
	'4 insert in front' => [ '1/1', forged(0) ],
	'5 insert behind' => [ "1/@{[ $n + 1 ]}", forged($n + 1) ],
	'6 insert behind, and the account follows' => [ "1/@{[ $n + 1 ]}", forged($n + 1) . '; ' . $follow->($n + 1) ],
	'7 insert in the middle, and the later ones move' => [ '1/4', "UPDATE loyalty.entry SET seq = -seq WHERE account_id = 1 AND seq > 3; UPDATE loyalty.entry SET seq = 1 - seq WHERE account_id = 1 AND seq < 0; " . forged(4) ],
	'8 reorder two' => [ '1/2', 'UPDATE loyalty.entry SET seq = -seq WHERE account_id = 1 AND seq IN (2, 3); UPDATE loyalty.entry SET seq = 5 + seq WHERE account_id = 1 AND seq < 0' ],
	'9 exchange entries of two accounts' => [ '1/2', 'UPDATE loyalty.entry SET account_id = -account_id WHERE account_id IN (1, 2) AND seq = 2; UPDATE loyalty.entry SET account_id = 3 + account_id WHERE account_id IN (-1, -2)' ],
	'a cut the tail' => [ "1/$n", "DELETE FROM loyalty.entry WHERE account_id = 1 AND seq >= $n" ],
	'b cut the sealed tail, and the account follows' => [ "1/@{[ $n - 2 ]}", "DELETE FROM loyalty.entry WHERE account_id = 1 AND seq > @{[ $n - 3 ]}; " . $follow->($n - 3) ],
	'c delete an account with all its entries' => [ '10', 'DELETE FROM loyalty.entry WHERE account_id = 10; DELETE FROM loyalty.account WHERE account_id = 10' ],
	'd an old copy of an account and its entries' => [ '1', "DELETE FROM loyalty.entry WHERE account_id = 1; INSERT INTO loyalty.entry SELECT * FROM kept.entry WHERE account_id = 1; DELETE FROM loyalty.account WHERE account_id = 1; INSERT INTO loyalty.account SELECT * FROM kept.account WHERE account_id = 1" ],
	'e an old copy of everything' => [ '1', $everything ],
	'f an old copy of everything, with its checkpoints' => [ 'kept checkpoint', join '; ', $everything, map { "DELETE FROM loyalty.$_; INSERT INTO loyalty.$_ SELECT * FROM kept.$_" } 'checkpoint_leaf', 'checkpoint_node', 'checkpoint' ],
	'g the number of another key' => [ '1/3', "UPDATE loyalty.entry SET hash = set_byte(hash, 0, 2) WHERE $entry" ],
	'h the number of no key' => [ '1/3', "UPDATE loyalty.entry SET hash = set_byte(hash, 0, 9) WHERE $entry" ],
	'i a hash without a key' => [ '1/3', "UPDATE loyalty.entry SET hash = substr(hash, 2) WHERE $entry" ],
	'j an account with its head and a new entry that it forged' => [ '11', "INSERT INTO loyalty.entry SELECT * FROM loyalty.entry WHERE false; UPDATE loyalty.entry SET lots = lots OPERATOR(loyalty.+) '{[,)=1000}', points = points + 1000 WHERE account_id = 11 AND seq = (SELECT max(seq) FROM loyalty.entry WHERE account_id = 11); UPDATE loyalty.account SET lots = lots OPERATOR(loyalty.+) '{[,)=1000}' WHERE account_id = 11" ]);
look('row', qr/^\S/, {}, map { [ $_, @{ $row{$_} } ] } sort keys %row);
is(ask('SELECT count(*) FROM loyalty.verify() UNION ALL SELECT count(*) FROM loyalty.check()'), "0\n0", 'and all was undone');

# ---- another key under the number of the right one, and the right one gone
put('keys', $keys =~ s/(1 blake2b )(?:1a)+/$1 . 'd4' x 32/re);
like(ask('SELECT string_agg(DISTINCT problem, \',\') FROM loyalty.verify()'), qr/^hash$/, 'keys exchanged: every chain is wrong');
is(ask('SELECT min(seq) FROM loyalty.verify()'), '1', 'from its first entry on');
put('keys', $keys =~ s/^1 .*\n//r);
like(ask('SELECT string_agg(DISTINCT problem, \',\') FROM loyalty.verify()'), qr/^unknown key$/, 'the key gone: unknown');
put('keys', $keys);
is(ask('SELECT * FROM loyalty.verify()'), '', 'and all is well with the right one');

# ---- whoever has the whole server, its keys and a copy of last week's books, plays them back and goes on: a program without a server that kept a checkpoint finds it
sub audit
{
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'python3', "$ENV{TESTDIR}/till/verify_proof.py", $public, @_ ], '<', \undef, '>', \$out, '2>', \$err);
	return $out . $err;
}
my $proof = 0;
sub proof { return put('proof' . $proof++, ask("SELECT $_[0]")); }
my ($first_size, $last_size) = split /\|/, ask('SELECT (SELECT max(size) FROM kept.checkpoint), max(size) FROM loyalty.checkpoint');
like(audit(proof("loyalty.consistency_proof($first_size)"), '--kept', $first), qr/"good": true/, 'honest books contain the checkpoint that was kept');
ask('BEGIN; SET LOCAL session_replication_role = replica; ' . join('; ', $everything, map { "DELETE FROM loyalty.$_; INSERT INTO loyalty.$_ SELECT * FROM kept.$_" } 'checkpoint_leaf', 'checkpoint_node', 'checkpoint') . '; COMMIT');
ask(q{INSERT INTO loyalty.purchase (member_id, amount) SELECT 1 + i % 3, 1000 + i FROM generate_series(1, 9) i; CALL loyalty.seal(); INSERT INTO loyalty.purchase (member_id, amount) SELECT 1 + i % 3, 2000 + i FROM generate_series(1, 9) i; CALL loyalty.seal()});
is(ask('SELECT * FROM loyalty.verify() UNION ALL SELECT * FROM loyalty.verify_sealed()'), '', 'books that were played back and went on are whole in themselves');
like(audit(proof("loyalty.consistency_proof($first_size)"), '--kept', $first), qr/"good": true/, 'they contain what was kept before');
unlike(audit(proof("loyalty.consistency_proof(CASE WHEN EXISTS (SELECT FROM loyalty.checkpoint WHERE size = $last_size) THEN $last_size ELSE (SELECT max(size) FROM loyalty.checkpoint) END)"), '--kept', $last), qr/"good": true/, 'and not what was kept after');
like(ask("SELECT string_agg(DISTINCT problem, ',') FROM loyalty.verify_sealed(pg_read_file('$last')::jsonb)"), qr/kept checkpoint/, 'as the server says itself of the checkpoint that was kept');
$node->stop;
done_testing();
