# An attacker who is a till, a report, or a role with nothing but a schema of its own: nothing is gained.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\nautovacuum = off\nloyalty.key_file = '$dir/keys'\n"
	. "log_min_duration_statement = 0\nlog_statement = all\nlog_parameter_max_length = 0\nlog_parameter_max_length_on_error = 0\nlog_error_verbosity = verbose\n");
my $has_statements = -e "$ENV{PKGLIBDIR}/pg_stat_statements.so";
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_stat_statements'\npg_stat_statements.track = all\n") if $has_statements;
open my $keys, '>', "$dir/keys" or die;
print $keys '1 blake2b ' . 'c1' x 32 . " chaining\n2 xchacha20 " . 'c2' x 32 . " sealing\n3 index " . 'c3' x 32 . " indexing\n4 ed25519 " . 'c4' x 32 . " signing\n";
close $keys;
chmod 0600, "$dir/keys";
$node->start;

my %heard;		# all that each role was ever told

# one value of one query of the owner's
sub ask { return $node->safe_psql('postgres', $_[0]); }

# what a role is told
sub say_as
{
	my ($role, $sql) = @_;
	my ($out, $err) = ('', '');
	$node->psql('postgres', $sql, stdout => \$out, stderr => \$err, on_error_stop => 0, extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);
	$heard{$role} .= "$out\n$err\n";
	return $err eq "" ? $out : "$out\n$err";
}

# the SQLSTATE of each of many statements, in one session of the role
sub states
{
	my ($role, @statements) = @_;
	my $script = join "\n", map { "BEGIN;\n$_;\n\\echo \@\@ :SQLSTATE\nROLLBACK;" } @statements;
	my @states = say_as($role, $script) =~ /^\@\@ (\w+)$/mg;
	die 'lost count' if @states != @statements;
	return @states;
}
# those of some statements whose SQLSTATE is not what was expected
sub unexpected
{
	my ($expected, $role, @statements) = @_;
	my @states = states($role, @statements);
	return join "\n", map { $states[$_] =~ $expected ? () : "$states[$_] $statements[$_]" } 0 .. $#statements;
}

# ---- a programme with everything that is secret to somebody
ask(<<'END');
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Club', time_zone => 'Europe/London', currency => 'GBP', on_rule_error => 'hold');
SELECT loyalty.create_program('Other');
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
SELECT loyalty.add_rule(1, 'card', 'purchase', 'bonus', $$coalesce((purchase.attributes ->> 'number')::numeric, 0)$$);
SELECT loyalty.add_rule(1, 'review', 'activity', 'base', '5');
SELECT loyalty.set_activity_policy(1, 'photo', max_age_days => 30);
SELECT loyalty.enroll(1, 'CanaryExternal' || i, birthday => '1961-07-09', attributes => '{"card": "CanaryAttribute"}') FROM generate_series(1, 20) i;
SELECT loyalty.enroll(1, 'anna');
SELECT loyalty.enroll(2, 'else');
SELECT loyalty.set_person(1, '{"name": "CanaryName"}'), loyalty.set_contact(1, 'email', 'canary-mail@nest.example'), loyalty.set_contact(22, 'email', 'other-mail@nest.example');
INSERT INTO loyalty.purchase (member_id, amount, attributes) SELECT 1 + i % 20, 100, '{"device": "CanaryDevice"}' FROM generate_series(1, 60) i;
INSERT INTO loyalty.purchase (member_id, amount, attributes) VALUES (1, 5, '{"number": "CanaryError"}');
SELECT loyalty.create_household(1, 'home');
SELECT loyalty.join_household(5, (SELECT max(member_id) FROM loyalty.member));
SELECT loyalty.set_referral(1, referrer_points => 5, friend_points => 5);
SELECT loyalty.referral_code(1), loyalty.invite(1, 'CanaryKey', 'web');
SELECT loyalty.add_limit(1, 'device', 1000000, '1 day', measure => 'amount', subject => $$purchase.attributes ->> 'device'$$, subject_kind => 'device');
SELECT loyalty.block_subject(1, 'device', 'CanaryBlocked', reason => 'stolen');
INSERT INTO loyalty.purchase (member_id, amount, attributes) VALUES (2, 5, '{"device": "CanaryBlocked"}');
SELECT loyalty.add_coupon_pool(1, 'spring', kind => 'discount_amount', value => 5), loyalty.make_coupons(1, 'spring', 10);
SELECT token FROM loyalty.make_voucher(1, 'amount', 5, member_id => 1);
CREATE ROLE till LOGIN; CREATE ROLE report LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE boss LOGIN;
SELECT loyalty.grant_app('till'), loyalty.grant_bi('report'), loyalty.grant_admin('boss');
CREATE SCHEMA trap_till AUTHORIZATION till; CREATE SCHEMA trap_report AUTHORIZATION report; CREATE SCHEMA trap_stranger AUTHORIZATION stranger; CREATE SCHEMA trap_boss AUTHORIZATION boss;
ANALYZE;
END
my @low = ('till', 'report', 'stranger');
my @everybody = (@low, 'boss');
is(ask('SELECT count(*) FROM loyalty.held_award'), '2', 'two awards wait');
my @secret = ('CanaryName', 'canary-mail', 'CanaryAttribute', 'CanaryDevice', 'CanaryError', 'CanaryKey', 'CanaryBlocked', '1961-07-09', 'c1c1c1c1', 'c2c2c2c2', 'c3c3c3c3', 'c4c4c4c4',
	split(/\n/, ask(q{SELECT code FROM loyalty.coupon UNION ALL SELECT encode(nonce, 'hex') FROM loyalty.voucher UNION ALL SELECT encode(blind, 'hex') FROM loyalty.identity UNION ALL SELECT encode(sealed, 'hex') FROM loyalty.person})));
sub told { my ($heard, @secrets) = @_; return join ' ', grep { index(lc $heard, lc $_) >= 0 } @secrets; }

# ---- rights
my @tables = split /\n/, ask(q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'loyalty'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1});
my @relations = split /\n/, ask(q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'loyalty'::regnamespace AND relkind = 'r' ORDER BY 1});
my @functions = split /\n/, ask(q{SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'loyalty'::regnamespace AND prokind = 'f' ORDER BY 1});
my @trigger_functions = split /\n/, ask(q{SELECT oid::regproc FROM pg_proc WHERE pronamespace = 'loyalty'::regnamespace AND prorettype = 'trigger'::regtype ORDER BY 1});
for my $role (@everybody)
{
	my $schema = "trap_$role";
	is(unexpected(qr/^42501$/, $role, map { ("DELETE FROM $_", "TRUNCATE $_", "LOCK TABLE $_ IN ACCESS EXCLUSIVE MODE", "CREATE INDEX ON $_ ((1))", "ALTER TABLE $_ DISABLE TRIGGER ALL", "ALTER TABLE $_ ENABLE ROW LEVEL SECURITY",
		"DROP TABLE $_ CASCADE", "COMMENT ON TABLE $_ IS 'x'", "CREATE RULE r AS ON INSERT TO $_ DO ALSO SELECT 1", "CREATE POLICY p ON $_", "CREATE TRIGGER t BEFORE INSERT ON $_ EXECUTE FUNCTION tsvector_update_trigger()") } grep { $role ne 'boss' || !/product|exchange_rate|out_of_stock/ } @relations),
		'', "$role deletes, locks and alters nothing");
	is(unexpected(qr/^42501$/, $role, map { ("CREATE TEMP TABLE t (a int); CREATE TRIGGER t AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION $_()",
		"CREATE TABLE $schema.t (a int); CREATE TRIGGER t BEFORE INSERT ON $schema.t FOR EACH ROW EXECUTE FUNCTION $_()") } @trigger_functions), '', "$role attaches none of our trigger functions");
	is(unexpected(qr/^42501$/, $role, map { "SELECT $_()" } @trigger_functions), '', 'and calls none');
	is(unexpected(qr/^42501$/, $role, map { ("ALTER FUNCTION $_ SET search_path = $schema", "DROP FUNCTION $_ CASCADE") } @functions), '', "$role alters no function");
	is(unexpected(qr/^42501$|^55P02$/, $role, "ALTER EXTENSION loyalty ADD SCHEMA $schema", 'DROP EXTENSION loyalty CASCADE', 'CREATE TABLE loyalty.t (a int)', 'ALTER SCHEMA loyalty RENAME TO x', 'SET session_replication_role = replica', "SELECT '{}'::loyalty.lots; SET loyalty.key_file = '/tmp/keys'",
		"SELECT '{}'::loyalty.lots; SHOW loyalty.key_file", "LOAD '\$libdir/loyalty'", "CREATE FUNCTION $schema.f(bigint, text, text) RETURNS bytea LANGUAGE c AS '\$libdir/loyalty', 'loyalty_seal_value'", "SELECT pg_read_file('$dir/keys')", "COPY loyalty.entry TO '$dir/entry'",
		"SELECT setval('loyalty.transaction_id_seq', 1)", 'SET ROLE postgres', 'SET log_statement = none', 'GRANT SELECT ON loyalty.person TO PUBLIC', 'SELECT * FROM pg_statistic', 'SELECT * FROM loyalty.person', "CREATE CAST (loyalty.lots AS text) WITH INOUT AS IMPLICIT"),
		'', "$role leaves the extension, the settings and the keys alone");
	is(unexpected(qr/^42P13$/, $role, "CREATE AGGREGATE $schema.s (loyalty.lots) (sfunc = loyalty.lots_sum_step, stype = internal)"), '', 'and makes nothing of the aggregates\' inner functions');
}
my @writes = split /\n/, ask(q{SELECT format('UPDATE %s SET %2$I = %2$I', attrelid::regclass, attname) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'loyalty'::regnamespace AND relkind IN ('r', 'v') AND attnum = 2});
is(unexpected(qr/^42501$|^55000$/, 'till', @writes, map { ("SELECT * FROM $_", "COPY $_ TO STDOUT") } grep { $_ ne 'loyalty.returned' } @tables), '', 'a till reads and updates no table');
like(say_as('till', "SET loyalty.key_file = '/tmp/keys'; SELECT loyalty.find_member(2, 'email', 'other-mail\@nest.example')"), qr/^22\n.*cannot be changed now/s, 'nor before the library is there');
is(unexpected(qr/^42501$/, 'report', map { ("INSERT INTO $_ DEFAULT VALUES", "SELECT FROM $_ FOR UPDATE") } @relations), '', 'a report inserts and locks nothing');
is(unexpected(qr/^42501$|^55000$/, 'stranger', map { ("SELECT count(*) FROM $_", "INSERT INTO $_ DEFAULT VALUES") } @tables), '', 'a stranger reads and inserts nothing');

# ---- forging
is(unexpected(qr/^42501$/, 'till', "INSERT INTO loyalty.purchase (member_id, amount, recorded_at) VALUES (1, 5, '2020-01-01')", "INSERT INTO loyalty.purchase (purchase_id, member_id, amount) VALUES (1, 1, 5)", 'INSERT INTO loyalty.purchase VALUES (1)',
	"INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (1, 5, 'x') ON CONFLICT (source, reference) DO UPDATE SET amount = 500", 'INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 5) RETURNING amount',
	"INSERT INTO loyalty.activity (member_id, kind, recorded_at) VALUES (1, 'x', '2020-01-01')", 'INSERT INTO loyalty.purchase_return (purchase_id, recorded_at) VALUES (1, now())', 'INSERT INTO loyalty.returned (return_id) VALUES (1)',
	'MERGE INTO loyalty.purchase p USING (VALUES (1)) v ON p.purchase_id = 1 WHEN MATCHED THEN UPDATE SET amount = 5', 'INSERT INTO loyalty.entry SELECT * FROM loyalty.entry'), '', 'a till cannot say when, correct, or post');
like(say_as('till', "COPY loyalty.purchase (member_id, amount, recorded_at) FROM STDIN;\n1\t10\t2020-01-01\n\\.\n"), qr/42501: permission denied/, 'nor by COPY');
is(say_as('till', "COPY loyalty.purchase (member_id, amount, reference) FROM STDIN;\n21\t10\tcopied\n\\.\n") . ask('SELECT points FROM loyalty.entry WHERE account_id = 21'), '10', 'what it copies in earns as what it inserts');
is(unexpected(qr/^LY/, 'till', (map { "INSERT INTO loyalty.purchase (member_id, amount) VALUES (21, '$_')" } 'NaN', 'Infinity', '-Infinity', '-1', '1e30', '0.00001'),
	(map { "INSERT INTO loyalty.purchase (member_id, amount, occurred_at) VALUES (21, 1, '$_')" } 'infinity', '-infinity', '4000-01-01', '0044-03-15 BC', '294276-12-31'),
	(map { "INSERT INTO loyalty.purchase (member_id, amount) VALUES ($_, 1)" } -1, 0, '9223372036854775807', '-9223372036854775808', '5000200000000001'),
	(map { "INSERT INTO loyalty.purchase_return (purchase_id, amount) VALUES (1, '$_')" } 'NaN', 'Infinity', -1, 1000000), (map { "INSERT INTO loyalty.activity (member_id, kind, value) VALUES (21, 'x', '$_')" } 'NaN', 'Infinity', '-Infinity')), '', 'numbers and times that are none are refused, with a word of ours');

# ---- hostile arguments of every function that a role may call: an answer, one of our errors, or one of the types', and never another
ask(<<'END');
CREATE TABLE public.hostile (type regtype, value text);
INSERT INTO public.hostile SELECT t::regtype, v FROM (VALUES
	('bigint', ARRAY[NULL, '1', '21', '0', '-1', '9223372036854775807', '-9223372036854775808']), ('integer', ARRAY[NULL, '1', '0', '-1', '2147483647', '-2147483648']),
	('text', ARRAY[NULL, 'anna', 'spring', '', 'x'';--', '{', '%s%n', repeat('y', 3000), E'\u202e\ufeff', 'phone', '+44 20 7946 0018', 'infinity']), ('name', ARRAY[NULL, 'x']),
	('numeric', ARRAY[NULL, '1', '0', '-1', 'NaN', 'Infinity', '-Infinity', '1e300', '0.00000000000000000001']), ('date', ARRAY[NULL, '2025-06-01', 'infinity', '-infinity', '4713-01-01 BC', '5874897-12-31']),
	('timestamptz', ARRAY[NULL, '2025-06-01', 'infinity', '-infinity', '4713-01-02 BC', '294276-12-31']), ('interval', ARRAY[NULL, '1 day', '0', '-1 day', '178000000 years', '1 month -30 days']),
	('jsonb', ARRAY[NULL, '{}', '[]', 'null', '"x"', '{"name": null}', '[{"sku": "A"}]', '[{"sku": null, "quantity": 1e400}]', '[{"sku": 5, "quantity": "NaN"}]']), ('boolean', ARRAY[NULL, 'true', 'false']),
	('bytea', ARRAY[NULL, '', '\x00', '\x' || repeat('0102', 16), '\x' || repeat('ff', 5000)]), ('text[]', ARRAY[NULL, '{}', '{NULL}', '{a,a}', '{{a},{b}}', '[3:4]={a,b}', '{' || repeat('a,', 20000) || 'a}']),
	('bigint[]', ARRAY[NULL, '{}', '{NULL}', '{1,1}', '{{1},{2}}', '{' || repeat('1,', 20000) || '1}']), ('loyalty.lots', ARRAY[NULL, '{}', '{[,)=9223372036854775807}', '{[infinity,)=1}', '{[,)=-5}']), ('loyalty.tally', ARRAY[NULL, '{}']),
	('loyalty.line[]', ARRAY[NULL, '{}', '{NULL}', '{"(,,,,)"}', '{"(A,NaN,Infinity,1,1)"}', '{"(A,1e300,1e300,1e300,)"}', '{{"(A,1,1,1,)"},{"(A,1,1,1,)"}}']), ('loyalty.return_line[]', ARRAY[NULL, '{}', '{NULL}']),
	('double precision', ARRAY[NULL, '0', '1', '-1', 'NaN', 'Infinity', '1e308']), ('loyalty.hold[]', ARRAY[NULL, '{}', '{NULL}', '{"(,,,,,)"}']), ('loyalty.activity_policy', ARRAY[NULL]::text[]), ('interval[]', ARRAY[NULL]::text[]), ('integer[]', ARRAY[NULL, '{}', '{NULL}', '{1,1}'])) h (t, vs), unnest(vs) v;
-- calls of every function that a role may call, with values drawn for a seed, null where a type has none; the states that are neither ours nor the types'
CREATE FUNCTION public.bombard(who name, seed integer, times integer) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	f record; call text; vals text[]; v text; state text; said text;
BEGIN
	PERFORM setseed(seed / 1000.0);
	FOR f IN SELECT p.oid, p.proname, p.proargtypes::oid[] AS types, p.pronargs FROM pg_proc p WHERE p.pronamespace = 'loyalty'::regnamespace AND p.prokind = 'f' AND p.prorettype NOT IN ('trigger'::regtype, 'internal'::regtype, 'cstring'::regtype)
			AND NOT p.proargtypes::oid[] && '{internal,cstring}'::regtype[]::oid[] AND has_function_privilege(who, p.oid, 'EXECUTE') ORDER BY p.oid::regprocedure::text COLLATE "C" LOOP
		FOR n IN 1 .. times LOOP
			vals := '{}';
			FOR i IN 0 .. f.pronargs - 1 LOOP
				SELECT h.value INTO v FROM public.hostile h WHERE h.type = f.types[i] AND (n < times / 3 OR random() < 0.3 OR h.value IN ('1', '21', 'anna', '2025-06-01', 'true', '{}', '1 day', 'spring')) ORDER BY random() LIMIT 1;
				vals := vals || v;
			END LOOP;
			call := format('SELECT count(x::text) FROM loyalty.%I(%s) x', f.proname, (SELECT string_agg(coalesce(quote_literal(x), 'NULL') || '::' || format_type(f.types[ord - 1], NULL), ', ' ORDER BY ord) FROM unnest(vals) WITH ORDINALITY u (x, ord)));
			BEGIN
				EXECUTE format('SET LOCAL ROLE %I', who);
				EXECUTE call;
				RAISE EXCEPTION USING ERRCODE = 'ZZ999';
			EXCEPTION WHEN OTHERS THEN
				GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT;
				IF state !~ '^(ZZ999|LY...|22...)$' THEN RETURN NEXT format('%s(%s %s: %s', f.proname, state, left(said, 200), left(call, 400)); END IF;
			END;
		END LOOP;
	END LOOP;
END $$;
END
is(ask("SET client_min_messages = error; SELECT DISTINCT ON (split_part(b, '(', 1)) b FROM public.bombard('$_->[0]', $_->[1], $_->[2]) b"), '', "hostile arguments to what $_->[0] may call") for [ 'till', 1, 60 ], [ 'report', 3, 20 ], [ 'stranger', 4, 20 ], [ 'boss', 5, 20 ];
is(ask('SELECT invariant, account_id, detail FROM loyalty.check() UNION ALL SELECT problem, account_id, seq::text FROM loyalty.verify()'), '', 'and the books are whole');

# ---- search_path, operators, temporary objects: what runs with the owner's rights never finds what somebody else put there
for my $role (@low)
{
	my $schema = "trap_$role";
	my @kinds = map { [ split /\t/, $_ ] } split /\n/, ask(q{SELECT concat_ws(chr(9), oprname, oprleft::regtype, oprright::regtype, oprresult::regtype) FROM pg_operator WHERE oprnamespace IN ('pg_catalog'::regnamespace, 'loyalty'::regnamespace) AND oprname IN ('=', '<', '>', '+', '-', '||', '<>', '->>', '~') AND oprkind = 'b'
		AND (oprleft, oprright) IN (('bigint'::regtype, 'bigint'::regtype), ('integer'::regtype, 'integer'::regtype), ('text'::regtype, 'text'::regtype), ('date'::regtype, 'date'::regtype), ('timestamptz'::regtype, 'timestamptz'::regtype), ('numeric'::regtype, 'numeric'::regtype),
			('loyalty.lots'::regtype, 'loyalty.lots'::regtype), ('jsonb'::regtype, 'text'::regtype), ('bytea'::regtype, 'bytea'::regtype)) AND oprresult <> 0});
	my $n = 0;
	my $traps = join "\n", map { my ($name, $left, $right, $result) = @$_; $n++; "CREATE FUNCTION $schema.trap$n($left, $right) RETURNS $result LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION 'CAUGHT % %', current_user, session_user; END \$\$; CREATE OPERATOR $schema.$name (LEFTARG = $left, RIGHTARG = $right, FUNCTION = $schema.trap$n);" } @kinds;
	$traps .= "\nCREATE FUNCTION $schema.$_->[0]($_->[1]) RETURNS $_->[2] LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION 'CAUGHT % %', current_user, session_user; END \$\$;"
		for [ 'now', '', 'timestamptz' ], [ 'coalesce_text', 'text', 'text' ], [ 'local_day', 'integer, timestamptz', 'date' ], [ 'require_member', 'bigint', 'bigint' ], [ 'nextval', 'regclass', 'bigint' ], [ 'lower', 'text', 'text' ], [ 'btrim', 'text', 'text' ], [ 'to_jsonb', 'anyelement', 'jsonb' ], [ 'format', 'text, text', 'text' ], [ 'upper', 'text', 'text' ], [ 'length', 'text', 'integer' ];
	$traps .= "\nCREATE TEMP TABLE $_ (member_id bigint, program_id integer, account_id bigint, name text, points bigint);" for (map { s/^loyalty\.//r } @tables), qw(pg_class pg_proc pg_roles pg_trigger pg_namespace pg_type pg_attribute m a e p r s q u v x old new given loyalty_new loyalty_old loyalty_header);
	$traps .= "\nCREATE TYPE pg_temp.text AS (a bigint); CREATE TYPE pg_temp.numeric AS (a bigint); CREATE DOMAIN pg_temp.lots AS text;";
	my $work = $role eq 'till' ? "INSERT INTO loyalty.purchase (member_id, amount, lines, attributes, reference) VALUES (1, 30, loyalty.lines('[{\"sku\": \"A\", \"unit_price\": 30}]'), '{\"device\": \"d\"}', 'trapped');
		INSERT INTO loyalty.activity (member_id, kind, attributes) VALUES (1, 'photo', '{\"receipt_date\": \"2020-01-01\"}'); INSERT INTO loyalty.purchase_return (purchase_reference, amount) VALUES ('trapped', 10);
		SELECT loyalty.enroll(1, 'trapped'), loyalty.balance(1), loyalty.cabinet(1), loyalty.quote(1, 10), loyalty.statement(1), loyalty.tier_progress(1), loyalty.rewards_for(1), loyalty.limit_status(1), loyalty.referrals(1), loyalty.challenges(1), loyalty.coupons(1), loyalty.vouchers(1);
		SELECT loyalty.redeem(1, 5, 'trapped'); SELECT loyalty.hold(1, 5, 'trapped 2'); SELECT loyalty.release(1, 'trapped 2'); SELECT loyalty.transfer(1, 2, 5, 'trapped 3'); SELECT loyalty.set_contact(1, 'phone', '+44 20 7946 0018'); SELECT loyalty.set_person(1, '{\"size\": \"M\"}');
		SELECT loyalty.give_consent(1, 'marketing', 'email', 'form'); SELECT loyalty.find_member(1, 'phone', '+442079460018'); SELECT loyalty.refer((SELECT loyalty.enroll(1, 'friend of trapped')), loyalty.referral_code(1)); SELECT loyalty.issue_coupon(1, 'spring', 'trapped');"
		: "SELECT loyalty.total('{[,)=5}'), loyalty.lines('[]'), loyalty.describe(1, 'base')" . ($role eq 'report' ? '; ' . join '; ', map { "SELECT count(*) FROM $_" } split(/\n/, ask(q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'loyalty'::regnamespace AND relkind IN ('r', 'v') AND has_any_column_privilege('report', oid, 'SELECT')})) : '');
	my $out = say_as($role, "SET client_min_messages = warning;\n$traps\nSET search_path = $schema, pg_temp, pg_catalog, loyalty;\n\\echo trapped\n" . ($work =~ s/loyalty\.lines/loyalty.lines/gr));
	like($out, qr/trapped/, "$role puts its own operators, functions, tables and types first");
	unlike($out, qr/CAUGHT (?!$role $role)/, 'and nothing of the owner\'s runs into them');
	like(say_as($role, "SET search_path = $schema, pg_catalog; SELECT 1 = 1"), qr/CAUGHT $role $role/, 'which do catch whoever runs into them');
	is(join("\n", grep { /ERROR/ && !/permission denied|CAUGHT $role $role/ } split /\n/, $out), '', 'and nothing fails');
}
is(ask(q{SELECT count(*) FROM loyalty.entry WHERE account_id = 1 AND key LIKE 'trapped%' OR source_id = (SELECT purchase_id FROM loyalty.purchase WHERE reference = 'trapped')}) > 3, 1, 'the till\'s work was done');

# ---- settings of a session: the books do not depend on them
my @mood = ("SET DateStyle = 'SQL, DMY'", "SET IntervalStyle = 'sql_standard'", "SET TimeZone = 'Pacific/Kiritimati'", 'SET standard_conforming_strings = off', 'SET escape_string_warning = off', 'SET transform_null_equals = on', 'SET array_nulls = off', "SET bytea_output = 'escape'", 'SET extra_float_digits = -15',
	'SET quote_all_identifiers = on', 'SET enable_indexscan = off', 'SET enable_bitmapscan = off', 'SET enable_hashjoin = off', "SET work_mem = '64kB'", 'SET plan_cache_mode = force_generic_plan', 'SET gin_fuzzy_search_limit = 1', "SET lc_monetary = 'C'", 'SET constraint_exclusion = on', 'SET jit = on', 'SET jit_above_cost = 0',
	"SET default_transaction_isolation = 'serializable'", 'SET backslash_quote = off', "SET xmloption = 'document'", 'SET search_path = \'\'', 'SET check_function_bodies = off', 'SET max_parallel_workers_per_gather = 4', 'SET parallel_setup_cost = 0', 'SET min_parallel_table_scan_size = 0', 'SET statement_timeout = 0', 'SET row_security = off', 'SET from_collapse_limit = 1');
ask(q{SELECT loyalty.add_rule(1, 'pattern', 'purchase', 'bonus', '7', $$purchase.store ~ '^\d+$' AND purchase.occurred_at > '02/01/2025' AND purchase.channel = ANY ('{NULL,app}')$$), loyalty.enroll(1, 'calm', joined_at => '2025-01-01'), loyalty.enroll(1, 'moody', joined_at => '2025-01-01'),
	loyalty.add_limit(1, 'hashed', 3, '1 hour', subject => $$encode(sha256((purchase.attributes ->> 'card')::bytea), 'hex')$$, verdict => 'clip', condition => $$purchase.attributes ->> 'card' ~ '^\d+$'$$)});
my ($calm, $moody) = map { ask("SELECT member_id FROM loyalty.member WHERE external_id = '$_'") } 'calm', 'moody';
my $month = ask(q{SELECT to_char(now() - interval '40 days', 'YYYY-MM')});
sub shop
{
	my ($member, $before) = @_;
	return say_as('till', "$before;\n" . join "\n", (map { "INSERT INTO loyalty.purchase (member_id, amount, occurred_at, store, channel, lines, attributes, reference) VALUES ($member, 10.5, '$month-0$_ 23:30:00+00', '12', 'app', loyalty.lines('[{\"sku\": \"A\", \"quantity\": 2, \"unit_price\": 5.25}]'), '{\"card\": \"$member\"}', 'mood $member $_');" } 1 .. 5),
		"INSERT INTO loyalty.activity (member_id, kind, occurred_at, attributes, reference) VALUES ($member, 'photo', '$month-07 12:00:00+00', '{\"receipt_date\": \"$month-06\"}', 'mood $member');", "INSERT INTO loyalty.purchase_return (purchase_reference, amount, occurred_at) VALUES ('mood $member 2', 3, '$month-08 00:00+00');",
		"SELECT redeemed FROM loyalty.redeem($member, 3, 'mood $member');", "SELECT loyalty.give_consent($member, 'mood', 'email', 'form', '$month-07 12:00:00+00');", "SELECT available, pending FROM loyalty.balance($member);");
}
my $same = q{SELECT e.seq, e.kind, e.points, e.lots, e.occurred_at, loyalty.breakdown_rules(e.breakdown), a.lots, a.tally FROM loyalty.entry e JOIN loyalty.account a USING (account_id) WHERE a.account_id = %s ORDER BY e.seq};
my $calmly = shop($calm, 'SELECT 1') =~ s/^1\n//r;
unlike($calmly, qr/ERROR/, 'a calm session');
is(shop($moody, join '; ', @mood), $calmly, 'a moody one is told the same');
is(ask(sprintf $same, $moody), ask(sprintf $same, $calm), 'and the books say the same');
like(ask(sprintf $same, $calm), qr/\(\d,,7,7\)/, 'with the rule whose text could be read in other ways');

# ---- what an administrator's rules may hold
my $deep = join ' + ', (1) x 1500;
is(unexpected(qr/^LY20[12]$/, 'boss', map { "SELECT loyalty.add_rule(1, 'evil', 'purchase', 'bonus', \$x\$$_\$x\$)" } 'pg_sleep(1)::text::numeric', "pg_read_file('/etc/passwd')::numeric", "lo_import('/etc/passwd')::numeric", "query_to_xml('select 1', true, true, '')::text::numeric", "current_setting('loyalty.key_file')::numeric",
	'(SELECT 1)', '(SELECT count(*) FROM loyalty.person)', 'trap_boss.evil(1)', '1 OPERATOR(trap_boss.+) 1', "set_config('search_path', 'x', false)::numeric", "nextval('loyalty.member_id_seq')", 'random()::numeric', 'now()::text::numeric', 'pg_backend_pid()', "txid_current()", "'x'::trap_boss.evil", 'loyalty.total(NULL)', 'generate_series(1, 10)', 'count(*)',
	'1; DROP TABLE loyalty.entry', '1) FROM loyalty.person --', 'CASE WHEN true THEN pg_advisory_lock(1)::text::numeric END', "sha256(purchase.store::bytea)::text::numeric", '(1::float8)::text::numeric', "(interval '1 day')::text::numeric", 'purchase.ctid::text::numeric', 'purchase', 'purchase.*', '$1', ':x', "repeat('x', 2000000000)::numeric", $deep . $deep, "'" . 'x' x 9000 . "'", "('{' || repeat('{', 5000))::jsonb ->> 'a'"),
	'', 'no clock, file, setting, table, function of their own, row, session\'s spelling, nor what is too long');

# ---- a table of somebody else's that the owner of the extension attached: its owner can do with it what he likes, and runs nothing with our rights
ask(<<'END');
SET ROLE stranger;
CREATE TABLE trap_stranger.orders (id bigint PRIMARY KEY, customer text, at timestamptz, note text);
CREATE TABLE trap_stranger.items (order_id bigint, sku text, price numeric);
GRANT USAGE ON SCHEMA trap_stranger TO till;
GRANT INSERT ON trap_stranger.orders, trap_stranger.items TO till;
CREATE FUNCTION trap_stranger.evil(anyelement) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF current_user NOT IN ('stranger', 'till') THEN RAISE EXCEPTION 'CAUGHT %', current_user; END IF; RETURN true; END $$;
CREATE FUNCTION trap_stranger.evil_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM trap_stranger.evil(1); RETURN coalesce(new, old); END $$;
RESET ROLE;
SELECT loyalty.attach('trap_stranger.orders', 'purchase', '{"member": "customer", "reference": "id::text", "amount": "0", "occurred_at": "at", "store": "note"}', 1, lines => 'trap_stranger.items', lines_key => 'order_id', header_key => 'id', lines_mapping => '{"sku": "sku", "unit_price": "price", "quantity": "1"}');
END
my $reshape = <<'END';
CREATE DOMAIN trap_stranger.sku AS text CHECK (trap_stranger.evil(VALUE));
CREATE DOMAIN trap_stranger.price AS numeric CHECK (trap_stranger.evil(VALUE));
CREATE FUNCTION trap_stranger.to_json(trap_stranger.sku) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM trap_stranger.evil(1); RETURN '"B"'; END $$;
ALTER TABLE trap_stranger.items ALTER COLUMN sku TYPE trap_stranger.sku, ALTER COLUMN price TYPE trap_stranger.price, ADD CHECK (trap_stranger.evil(price));
ALTER TABLE trap_stranger.orders ALTER COLUMN note TYPE trap_stranger.sku, ADD COLUMN extra boolean GENERATED ALWAYS AS (trap_stranger.evil(id)) STORED;
ALTER TABLE trap_stranger.items ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE trap_stranger.orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON trap_stranger.items USING (trap_stranger.evil(1)) WITH CHECK (trap_stranger.evil(1));
CREATE POLICY p ON trap_stranger.orders USING (trap_stranger.evil(1)) WITH CHECK (trap_stranger.evil(1));
CREATE INDEX ON trap_stranger.items ((trap_stranger.evil(order_id)));
CREATE TRIGGER a BEFORE INSERT OR UPDATE OR DELETE ON trap_stranger.items FOR EACH ROW EXECUTE FUNCTION trap_stranger.evil_row();
CREATE TRIGGER a BEFORE INSERT OR UPDATE OR DELETE ON trap_stranger.orders FOR EACH ROW EXECUTE FUNCTION trap_stranger.evil_row();
CREATE TABLE trap_stranger.child (CHECK (trap_stranger.evil(order_id))) INHERITS (trap_stranger.items);
END
unlike(say_as('stranger', $reshape), qr/ERROR/, 'who owns an attached table reshapes it');
my $traded = join '', map { say_as($_, "INSERT INTO trap_stranger.orders (id, customer, at, note) VALUES (${\ ($_ eq 'till' ? 1 : 2)}, 'anna', now(), 'S1'); INSERT INTO trap_stranger.items VALUES (${\ ($_ eq 'till' ? 1 : 2)}, 'A', 5);") } 'till', 'stranger';
$traded .= say_as('stranger', q{UPDATE trap_stranger.items SET price = 6; INSERT INTO trap_stranger.child VALUES (2, 'C', 1); UPDATE trap_stranger.orders SET note = 'S2'; DELETE FROM trap_stranger.items WHERE order_id = 1; DELETE FROM trap_stranger.orders WHERE id = 1});
unlike($traded, qr/CAUGHT/, 'and nothing of his runs with our rights');
is(unexpected(qr/^42501$/, 'stranger', 'INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 1)', "SELECT loyalty.attach_triggers('trap_stranger.child')", "SELECT loyalty.detach('trap_stranger.orders')",
	'CREATE TABLE trap_stranger.other (LIKE trap_stranger.orders INCLUDING ALL); CREATE TRIGGER t AFTER INSERT ON trap_stranger.other REFERENCING NEW TABLE AS loyalty_new FOR EACH STATEMENT EXECUTE FUNCTION loyalty.receive()'), '', 'nor does he award past it');

# ---- views, leaky functions, statistics, plans
my $leaks = '';
say_as('report', 'CREATE FUNCTION trap_report.leak(text) RETURNS boolean COST 0.0000001 LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE $x$%$x$, $1; RETURN true; END $$; CREATE FUNCTION trap_report.leak2(text, text) RETURNS boolean COST 0.0000001 LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE $x$% %$x$, $1, $2; RETURN false; END $$; CREATE OPERATOR trap_report.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = trap_report.leak2, RESTRICT = eqsel)');
my @columns = split /\n/, ask(q{SELECT format('%s.%I', c.oid::regclass, a.attname) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = 'loyalty'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND has_column_privilege('report', c.oid, a.attnum, 'SELECT')});
for my $column (@columns)
{
	my ($table, $name) = $column =~ /^(loyalty\.\w+)\.(.*)$/;
	$leaks .= join '', map { "$_;\n" } ("SELECT count(*) FROM $table WHERE trap_report.leak($name\::text)", "SELECT 1 FROM $table WHERE $name\::text OPERATOR(trap_report.<<<) 'x'", "EXPLAIN VERBOSE SELECT 1 FROM $table WHERE $name\::text OPERATOR(trap_report.<<<) 'x'");
}
my $leaked = say_as('report', "SET client_min_messages = notice;\n$leaks");
like($leaked, qr/NOTICE.*purchase/s, 'a report sees what it may see through functions of its own, and no refusal:');
is(join("\n", grep { /ERROR/ } split /\n/, $leaked), '', 'none');
is(told($leaked, @secret, 'CanaryExternal'), '', 'nothing else shows');
for my $role (@low)
{
	my $stats = say_as($role, "SELECT * FROM pg_stats WHERE schemaname = 'loyalty'; SELECT * FROM pg_stats_ext; SELECT * FROM pg_stat_activity; SELECT * FROM pg_cursors; SELECT * FROM pg_prepared_statements; SELECT * FROM pg_largeobject_metadata; SELECT oid, prosrc FROM pg_proc WHERE pronamespace = 'loyalty'::regnamespace; SELECT * FROM pg_stat_user_tables; SELECT * FROM pg_locks");
	is(told($stats, @secret, 'CanaryExternal', 'test/t'), '', "statistics and catalogues tell $role nothing");
}
is(unexpected(qr/^42501$/, 'report', map { my ($t, $c) = split /\|/; ("SELECT $c FROM $t", "SELECT 1 FROM $t WHERE $c IS NOT NULL", "SELECT count(*) FROM $t GROUP BY $c", "COPY $t ($c) TO STDOUT", "SELECT t FROM $t t", "EXPLAIN SELECT 1 FROM $t WHERE ($c)::text = 'x'", "SELECT to_jsonb(t) FROM $t t", "SELECT 1 FROM $t a JOIN $t b USING ($c)") }
	'loyalty.member|external_id', 'loyalty.member|birthday', 'loyalty.member|attributes', 'loyalty.purchase|attributes', 'loyalty.activity|attributes', 'loyalty.voucher|nonce', 'loyalty.coupon|code', 'loyalty.limit_decision|subject', 'loyalty.referral|key', 'loyalty.review_queue|detail'), '',
	'a column that a report may not read is refused in every place of a query');

# ---- what the server prints of plans: a session may ask for the trees of all that runs in it, our functions' queries with their constants too
my $talkative = "SET client_min_messages = debug5; SET debug_print_parse = on; SET debug_print_rewritten = on; SET debug_print_plan = on; SET plan_cache_mode = force_custom_plan;\n";
my $trees = say_as('till', $talkative . q{SELECT loyalty.balance(1), loyalty.cabinet(1), loyalty.rewards_for(1), loyalty.challenges(1), loyalty.limit_status(1), loyalty.statement(1); SELECT loyalty.quote(1, 5);
	INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (1, 5, 'talk'); SELECT loyalty.explain((SELECT purchase_id FROM loyalty.purchase WHERE reference = 'talk')); SELECT loyalty.redeem(1, 1, 'talk'); SELECT loyalty.set_person(1, '{"city": "x"}'); SELECT loyalty.find_member(1, 'email', 'nobody@nest.example'); SELECT loyalty.has_consent(1, 'a', 'b');
	SELECT loyalty.set_contact(3, 'email', 'third@nest.example'); SELECT loyalty.refer(3, loyalty.referral_code(2)); SELECT loyalty.vouchers(1)});
like($trees, qr/PLANNEDSTMT/, 'plans are printed to who asks for them');
is(told($trees, grep { !/CanaryKey|^[0-9A-Z]{4}-/ && length($_) != 34 } @secret), '', 'and hold no personal data and no key');

# ---- channels and objects beside
is(say_as('till', "LISTEN loyalty; LISTEN purchase; INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 1); SELECT count(*) FROM pg_largeobject_metadata; SELECT 1"), "0\n1", 'no notification, no large object');

# ---- a rule that eats time stops where the till's time is up, and nothing was written
ask(q{SELECT loyalty.add_rule(1, 'slow', 'purchase', 'bonus', $$length(repeat(purchase.channel, 20000))$$, condition => $$purchase.store = 'bomb'$$)});
like(say_as('till', q{SET statement_timeout = '300ms'; INSERT INTO loyalty.purchase (member_id, amount, store, channel, reference) SELECT 21, 1, 'bomb', repeat('ab', 1000) || i, 'bomb ' || i FROM generate_series(1, 1000) i}), qr/57014/, 'a rule that eats time stops with the statement');
is(ask(q{SELECT count(*) FROM loyalty.purchase WHERE store = 'bomb'}), '0', 'and nothing of it stays');
ask(q{SELECT loyalty.retire_rule(1, 'slow')});

# ---- what is sent as a bind parameter is kept by nothing that looks at statements
my %bound = (name => 'BoundName', mail => 'bound-mail@nest.example', card => '4006381333931', external => 'BoundExternal', birthday => '1971-11-23');
open my $script, '>', "$dir/bind" or die;
print $script <<'END';
SELECT loyalty.set_person(21, jsonb_build_object('name', :name::text));
SELECT loyalty.set_contact(21, 'email', :mail);
SELECT loyalty.find_member(1, 'email', :mail);
SELECT loyalty.remove_contact(21, 'card', :card);
SELECT loyalty.enroll(1, :external, birthday => :birthday::date);
INSERT INTO loyalty.purchase (member_id, amount, attributes) VALUES (21, 1, jsonb_build_object('mail', :mail::text));
END
close $script;
IPC::Run::run([ 'pgbench', '-n', '-M', 'extended', '-t', '1', '-U', 'till', (map { ('-D', "$_=$bound{$_}") } sort keys %bound), '-f', "$dir/bind", $node->connstr('postgres') ], '>', \my $bind_out, '2>', \my $bind_err);
is($bind_err =~ s/^pgbench \(.*\n//r, '', 'a till sends personal data as bind parameters');
is(ask(q{SELECT loyalty.person(21) ->> 'name'}), 'BoundName', 'which arrive');
my $log = slurp_file($node->logfile);
like($log, qr/loyalty\.find_member/, 'the log has the statements');
is(told($log, values %bound), '', 'and none of the values');
SKIP:
{
	skip 'no pg_stat_statements', 3 unless $has_statements;
	ask('CREATE EXTENSION pg_stat_statements');
	my $statements = ask('SELECT query FROM pg_stat_statements');
	like($statements, qr/INSERT INTO loyalty\.identity/, 'pg_stat_statements has our inner statements, too');
	is(told($statements, values %bound), '', 'and none of the values');
	is(told(say_as('till', "SELECT query FROM pg_stat_statements WHERE query LIKE '%set_person%' OR query LIKE '%make_voucher%'"), 'CanaryName', 'make_voucher'), '', 'a till sees no text of others');
}

# ---- the time of a look-up: a hit and a miss differ as their answers do; a contact of another programme is a miss like any other
ask(q{SELECT loyalty.enroll(2, 'o' || i) FROM generate_series(1, 300) i; SELECT loyalty.set_contact(member_id, 'telegram', external_id) FROM loyalty.member WHERE program_id = 2 AND external_id LIKE 'o%'; SELECT loyalty.set_contact(21, 'telegram', 'h' || i) FROM generate_series(1, 300) i; ANALYZE loyalty.identity});
ask(<<'END');
CREATE FUNCTION public.median_microseconds(prefix text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE began timestamptz; took numeric[] := '{}';
BEGIN
	FOR i IN 1 .. 300 LOOP
		began := clock_timestamp();
		PERFORM loyalty.find_member(1, 'telegram', prefix || i);
		took := took || round(extract(epoch FROM clock_timestamp() - began) * 1000000);
	END LOOP;
	RETURN (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY t) FROM unnest(took) t);
END $$;
END
my %took = map { $_->[0] => ask("SELECT min(public.median_microseconds('$_->[1]')) FROM generate_series(1, 5)") } [ hit => 'h' ], [ miss => 'm' ], [ other => 'o' ];
note("a look-up takes $took{hit} us where it hits, $took{miss} us where it misses, $took{other} us where another programme has the contact");
cmp_ok(abs($took{other} - $took{miss}), '<=', 5 + 0.5 * $took{miss}, 'a contact of another programme takes as long as none');

is(told($heard{$_}, @secret), '', "$_ was never told a secret") for 'report', 'stranger';
is(told($heard{till}, grep { !/CanaryKey|^[0-9A-Z]{4}-/ } @secret), '', 'nor was the till, but for the codes that it gives out');
$node->stop;
done_testing();
