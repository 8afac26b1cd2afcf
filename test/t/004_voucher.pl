# Vouchers outside of one session: the key file and its dangers, rotation, a till without a server,
# a race of 64 clients, a dump and its restore.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $keys = PostgreSQL::Test::Utils::tempdir() . '/keys';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\nmax_connections = 100\nlog_statement = all\n");
$node->start;

# one value of one query
sub ask { return $node->safe_psql('postgres', $_[0]); }

# the SQLSTATE, message and detail of a statement that fails
sub refusal
{
	my ($out, $err) = ('', '');
	$node->psql('postgres', "\\set VERBOSITY verbose\n$_[0]", stdout => \$out, stderr => \$err);
	return $err =~ /ERROR:\s+(\w+): (.*)\n(?:DETAIL:\s+(.*)\n)?/ ? "$1 $2" . (defined $3 ? " $3" : '') : "no error: $out$err";
}

# write the key file
sub write_keys
{
	my ($text, $mode) = @_;
	unlink $keys;
	open my $file, '>', $keys or die;
	print $file $text;
	close $file;
	chmod $mode // 0600, $keys;
}

# set the file's name and wait until a new session sees it
sub name_keys
{
	my ($name) = @_;
	# a session that has not loaded the library does not know the setting
	ask("SELECT loyalty.total('{}'); ALTER SYSTEM SET loyalty.key_file = '$name'");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('loyalty.key_file') = '$name'") or die;
}

ask(q{CREATE EXTENSION loyalty; SELECT loyalty.create_program('Club'); SELECT loyalty.enroll(1, 'ann'); SELECT loyalty.enroll(1, 'bea');});

# ---- without a key everything else works
my $made = q{SELECT token FROM loyalty.make_voucher(1, 'amount', 5)};
like(refusal($made), qr/^LY601 no key is configured$/, 'no key: LY601');
like(refusal(q{SELECT loyalty.redeem_voucher('04', 'k')}), qr/^LY611/, 'garbage is garbage without a key, too');
like(refusal(q{SELECT loyalty.voucher_keys()}), qr/^LY601/, 'no key: no list of keys');
is(ask(q{INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 10) RETURNING status}), 'completed', 'no key: the engine runs');
is(ask('SELECT * FROM loyalty.check()'), '', 'no key: the books are whole');

# ---- unsafe and malformed files
my @line = map { ask("SELECT loyalty.make_key($_)") } 1 .. 9;
my %secret = map { (split / /)[0] => (split / /)[2] } @line;
name_keys($keys);
like(refusal($made), qr/^LY602 .*it does not exist/, 'a file that is not there');
write_keys("# nothing\n\n");
like(refusal($made), qr/^LY601 no key of the key file may sign/, 'an empty file');
for my $mode (0640, 0604, 0660, 0620, 0610, 0602, 0777)
{
	write_keys("$line[0]\n", $mode);
	like(refusal($made), qr/^LY602 .*its group or others have rights on it/, sprintf('mode %o', $mode));
}
for my $bad ([ "0 ed25519 $secret{1}", qr/line 1: a key's number/ ], [ "256 ed25519 $secret{1}", qr/line 1: a key's number/ ], [ "x ed25519 $secret{1}", qr/line 1: a key's number/ ],
	[ "-1 ed25519 $secret{1}", qr/line 1: a key's number/ ], [ "# one\n\n1 rsa $secret{1}", qr/line 3: behind the number stands ed25519/ ], [ "1", qr/line 1: behind the number/ ], [ "1 ed25519", qr/line 1: a seed/ ],
	[ "$secret{1}", qr/line 1: a key's number/ ], [ "1 $secret{1}", qr/line 1: behind the number/ ], [ '1 ed25519 ' . substr($secret{1}, 1), qr/line 1: a seed/ ], [ "1 ed25519 ${\ ($secret{1})}0", qr/line 1: a seed/ ],
	[ '1 ed25519 ' . substr($secret{1}, 1) . 'g', qr/line 1: a seed/ ], [ "1 ed25519 $secret{1} sign", qr/line 1: a status/ ], [ "1 ed25519 $secret{1} $secret{2}", qr/line 1: a status/ ], [ "1 ed25519 $secret{1} signing now", qr/line 1: nothing stands/ ],
	[ "$line[0]\n$line[0]", qr/line 2: this number was used above/ ], [ "1 ed25519 $secret{1}\0", qr/line 1: a seed/ ], [ "\0", qr/line 1: a key's number/ ], [ "\xff\xfe", qr/line 1: a key's number/ ], [ '#' x 70_000, qr/larger than 64 kB/ ])
{
	write_keys($bad->[0]);
	my $error = refusal($made);
	like($error, qr/^LY602 .*$bad->[1]/, 'malformed: ' . substr($bad->[0] =~ s/[0-9a-f]{60,}/SEED/gr =~ s/[^ -~]/?/gr, 0, 40));
}
unlink $keys;
symlink "/dev/null", $keys;
like(refusal($made), qr/^LY602 .*it is not a regular file/, 'a device');
unlink $keys;
mkdir $keys;
like(refusal($made), qr/^LY602 .*it is not a regular file/, 'a directory');
rmdir $keys;
PostgreSQL::Test::Utils::system_or_bail('mkfifo', '-m', '600', $keys);
like(refusal($made), qr/^LY602 .*it is not a regular file/, 'a pipe, and nobody waits at it');
unlink $keys;
my $inside = $node->data_dir . '/keys';
write_keys("$line[0]\n");
PostgreSQL::Test::Utils::system_or_bail('cp', '-p', $keys, $inside);
name_keys($inside);
like(refusal($made), qr/^LY602 .*it lies in the data directory/, 'a file in the data directory');
name_keys('keys');
like(refusal($made), qr/^LY602 .*its path is not absolute/, 'a relative path');
unlink $keys;
symlink $inside, $keys;
name_keys($keys);
like(refusal($made), qr/^LY602 .*it lies in the data directory/, 'and by a symbolic link, too');
name_keys('/etc/passwd');
like(refusal($made), qr/^LY602 .*it is not owned by the server's user/, 'a file of another user');
unlink $inside;
name_keys($keys);

# ---- rotation: announce, sign, retire
sub status { return ask(q{SELECT string_agg(key_id || ' ' || status, ', ' ORDER BY key_id) FROM loyalty.voucher_keys()}); }
write_keys("# the first\n  $line[0]  # since today\r\n\n");
is(status(), '1 signing', 'blanks, comments and line ends do not matter');
my $old = ask(q{SELECT token FROM loyalty.make_voucher(1, 'amount', 5, key => 'old')});
write_keys("1 ed25519 $secret{1} signing\n2 ed25519 $secret{2} verifying\n");
is(status(), '1 signing, 2 verifying', 'a new key is announced to the tills');
is(ask(q{SELECT key_id FROM loyalty.voucher_key}), '1', 'only the key that has signed is recorded');
write_keys("1 ed25519 $secret{1} signing\n2 ed25519 " . uc($secret{2}) . "\n");
is(status(), '1 verifying, 2 signing', 'the last one signs');
my $new = ask(q{SELECT token FROM loyalty.make_voucher(1, 'amount', 5, key => 'new')});
is(ask("SELECT (loyalty.read_token('$old')).key_id, (loyalty.read_token('$new')).key_id"), '1|2', 'old tokens have the old key, new ones the new');
is(ask(q{SELECT string_agg(key_id::text, ',' ORDER BY key_id) FROM loyalty.voucher_key}), '1,2', 'both are recorded');
is(ask("SELECT status FROM loyalty.redeem_voucher('$old', 'r1')"), 'redeemed', 'a token of the old key is redeemed');
my $again = ask(q{SELECT loyalty.voucher_token(voucher_id) FROM loyalty.make_voucher(1, 'amount', 5, key => 'old2', valid_from => '2024-01-01')});
write_keys("1 ed25519 $secret{1} retired\n2 ed25519 $secret{2} retired\n3 ed25519 $secret{3}\n");
is(status(), '1 retired, 2 retired, 3 signing', 'retired keys are listed, so that tills drop them');
like(refusal("SELECT loyalty.redeem_voucher('$again', 'r2')"), qr/^LY603 key 2 is retired/, 'a token of a retired key: LY603');
my $printed = ask(q{SELECT loyalty.voucher_token(voucher_id) FROM loyalty.voucher WHERE key = 'old2'});
is(ask("SELECT status FROM loyalty.redeem_voucher('$printed', 'r2')"), 'redeemed', 'its voucher is printed again with the new key');
write_keys("3 ed25519 $secret{3}\n");
like(refusal("SELECT loyalty.redeem_voucher('$new', 'r3')"), qr/^LY603 key 2 is unknown/, 'a token of a key that is gone: LY603');
write_keys("1 ed25519 $secret{1} verifying\n");
like(refusal($made), qr/^LY601 no key of the key file may sign/, 'no key that signs: LY601');
write_keys("3 ed25519 $secret{4}\n");
like(refusal($made), qr/^LY602 key 3 of the key file is not the key 3 that signed before/, 'a number with another key: LY602');
my $forger = ask('SELECT loyalty.sign_voucher(v, 3) FROM loyalty.voucher v WHERE key = \'new\'');
write_keys(join('', map { "$_ ed25519 $secret{$_}\n" } 1, 2, 3));
like(refusal("SELECT loyalty.redeem_voucher('$forger', 'r3')"), qr/^LY611 the token is forged or damaged/, 'a token of somebody else\'s key with our number: LY611');

# ---- nobody points a session to another file, before the library is loaded or after
my $theirs = PostgreSQL::Test::Utils::tempdir() . '/theirs';
PostgreSQL::Test::Utils::system_or_bail('cp', '-p', $keys, $theirs);
ask(q{CREATE ROLE app LOGIN; SELECT loyalty.grant_app('app'); GRANT EXECUTE ON FUNCTION loyalty.voucher_keys() TO app});
write_keys("3 ed25519 $secret{3}\n");
for my $who ('app', $node->safe_psql('postgres', 'SELECT current_user'))
{
	my $out = '';
	$node->psql('postgres', "SET loyalty.key_file = '$theirs'; SELECT count(*) FROM loyalty.voucher_keys(); SET loyalty.key_file = '$theirs'; SELECT count(*) FROM loyalty.voucher_keys();", stdout => \$out, extra_params => [ '-U', $who ], on_error_stop => 0);
	is($out, "1\n1", "SET does not change it, $who");
	local $ENV{PGOPTIONS} = "-c loyalty.key_file=$theirs";
	my $err = '';
	$node->psql('postgres', "SELECT count(*) FROM loyalty.voucher_keys()", stdout => \$out, stderr => \$err, extra_params => [ '-U', $who ], on_error_stop => 0);
	like("$out$err", qr/cannot be changed now.*no key is configured/s, "a connection's options only lock it out, $who");
}
write_keys(join('', map { "$_ ed25519 $secret{$_}\n" } 1, 2, 3));

# ---- a till: Python, public keys, no server
my $till = "$ENV{TESTDIR}/till/verify_token.py";
my $public = ask(q{SELECT string_agg(key_id || ':' || encode(public_key, 'hex'), ',') FROM loyalty.voucher_keys()});
my $tokens = PostgreSQL::Test::Utils::tempdir() . '/tokens';
sub till
{
	my ($text, @options) = @_;
	open my $file, '>', $tokens or die;
	print $file $text;
	close $file;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'python3', $till, $public, '-', @options ], '<', $tokens, '>', \$out, '2>', \$err);
	return $err eq '' ? $out : $err;
}
ask(q{
	CREATE TABLE printed AS SELECT i, v.* FROM generate_series(1, 90) i, loyalty.make_voucher(1, (ARRAY['amount', 'percent', 'product', 'service', 'shipping', 'event', 'donation', 'partner', 'points'])[1 + i % 9],
		CASE WHEN i % 9 IN (3, 4) THEN NULL WHEN i % 9 IN (2, 8) THEN i ELSE i + i / 10000.0 END, CASE WHEN i % 2 = 0 THEN 1 + (i / 2) % 2 END, date '2024-01-01' + i, CASE WHEN i % 3 > 0 THEN date '2040-01-01' + i * 97 END,
		CASE WHEN i % 9 = 2 OR i % 5 = 0 THEN 'SKU ' || repeat('x', i % 28) END, key => 'till ' || i) v});
ask(q{CREATE TABLE scanned (line int GENERATED ALWAYS AS IDENTITY, j jsonb)});
my $all = ask('SELECT token FROM printed ORDER BY i');
my $seen = till("$all\n", '--on', '2030-01-01');
open my $lines, '>', $tokens or die;
print $lines $seen;
close $lines;
$node->command_ok([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), '-c', "\\copy scanned (j) from '$tokens' with (format csv, quote e'\\x01', delimiter e'\\x02')" ], 'the till read every token');
is(ask(q{SELECT count(*), count(*) FILTER (WHERE (s.j ->> 'good')::boolean AND (s.j ->> 'voucher_id')::bigint = v.voucher_id AND (s.j ->> 'program_id')::int = v.program_id AND (s.j ->> 'key_id')::int = v.key_id AND s.j ->> 'kind' = v.kind
	AND (s.j ->> 'value')::numeric IS NOT DISTINCT FROM v.value AND s.j ->> 'currency' IS NOT DISTINCT FROM v.currency AND s.j ->> 'sku' IS NOT DISTINCT FROM v.sku AND (s.j ->> 'valid_from')::date = v.valid_from
	AND (s.j ->> 'valid_until')::date IS NOT DISTINCT FROM v.valid_until AND decode(s.j ->> 'nonce', 'hex') = v.nonce AND decode(s.j ->> 'member_tag', 'hex') IS NOT DISTINCT FROM loyalty.member_tag(v.member_id, v.nonce))
	FROM scanned s JOIN printed p ON p.i = s.line JOIN loyalty.voucher v USING (voucher_id)}), '90|90', 'and says of each what the server says');
my @token = split /\n/, $all;
like(till(lc($token[0] =~ s/(....)/$1-/gr) . "\n", '--on', '2030-01-01'), qr/"good": true/, 'the till forgives small letters and hyphens');
like(till("$token[0]\n", '--on', '2024-01-01'), qr/"why": "not yet valid"/, 'the till knows the first day');
like(till("$token[0]\n", '--on', '2041-01-01'), qr/"why": "expired"/, 'and the last');
like(till("$token[0]\n", '--on', '2030-01-01', '--program', '2'), qr/"why": "another programme"/, 'and the programme');
like(till("$token[1]\n", '--on', '2030-01-01', '--member', '1'), qr/"why": "another member"/, 'and whose it is not');
like(till("$token[1]\n", '--on', '2030-01-01', '--member', '2'), qr/"good": true/, 'and whose it is');
like(till("$forger\n"), qr/"why": "forged"/, 'the till finds a forged one');
my $other_server = ask("SELECT loyalty.sign_voucher(v, 3) FROM loyalty.voucher v WHERE key = 'new'");
is($other_server ne $forger, 1, 'which differs from ours in the signature alone');
my @damaged = map { my $t = $token[4]; substr($t, $_, 1) = substr($t, $_, 1) eq '7' ? '8' : '7'; $t } 0 .. length($token[4]) - 1;
push @damaged, map { substr($token[4], 0, $_) } 0 .. length($token[4]) - 1;
push @damaged, "$token[4]0", "$token[4]00000000", "$token[4] ", 'U', 'ÄÖ', '0' x 600, 'Z' x 200;
my $verdicts = till(join("\n", @damaged) . "\n", '--on', '2030-01-01');
my @good = grep { /"good": true/ } split /\n/, $verdicts;
is(scalar(split /\n/, $verdicts) . '/' . scalar(@good), scalar(@damaged) . '/0', 'and every damaged one, letter by letter and cut by cut');

# ---- a race: 64 clients, each with all of 250 vouchers, one winner each
ask(q{
	CREATE TABLE raced AS SELECT i, v.* FROM generate_series(1, 250) i, loyalty.make_voucher(1, 'amount', 1 + 0 * i, key => 'race ' || i) v;
	CREATE TABLE won (client int, i int);
	CREATE FUNCTION race(client int, n int) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM loyalty.redeem_voucher(token, format('%s %s', client, n)) FROM raced WHERE i = n;
		INSERT INTO won VALUES (client, n);
	EXCEPTION WHEN SQLSTATE 'LY612' OR serialization_failure THEN
		NULL;
	END $$;
});
my $script = PostgreSQL::Test::Utils::tempdir() . '/race.pgbench';
open my $pgbench, '>', $script or die;
print $pgbench "\\set n 1 + (:n + :step) % 250\nSELECT race(:client_id, :n);\n";
close $pgbench;
for my $level ('read committed', 'repeatable read')
{
	# every client goes through the same vouchers at the same pace
	my $first = $level eq 'read committed' ? 0 : 125;
	local $ENV{PGOPTIONS} = "-c default_transaction_isolation=${\ ($level =~ s/ /\\ /r)}";
	$node->command_ok([ 'pgbench', '-n', '-c', '64', '-j', '2', '-t', '125', '-D', "n=" . ($first + 249), '-D', 'step=1', '-f', $script, $node->connstr('postgres') ], "64 clients, 125 vouchers, $level");
}
is(ask('SELECT count(*), count(DISTINCT i), min(i), max(i) FROM won'), '250|250|1|250', 'every voucher has exactly one winner');
is(ask(q{SELECT count(*) FROM won w JOIN raced USING (i) JOIN loyalty.voucher v USING (voucher_id) WHERE v.status = 'redeemed' AND v.redeem_key = format('%s %s', w.client, w.i)}), '250', 'who is the one that the voucher names');
cmp_ok(ask('SELECT count(DISTINCT client) FROM won'), '>', 8, 'and it was a race');
is(ask('SELECT * FROM loyalty.check()'), '', 'the books are whole');

# ---- a dump and its restore: tokens go on, sequences go on, no secret travels
my $everything = q{SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM (SELECT to_jsonb(v) FROM loyalty.voucher v UNION ALL SELECT to_jsonb(k) FROM loyalty.voucher_key k) t};
my $dump = $node->backup_dir . '/voucher.dump';
$node->command_ok([ 'pg_dump', '--format=custom', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
ask('CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-j', '2', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'pg_restore, in parallel');
is($node->safe_psql('restored', $everything), ask($everything), 'every voucher and every key is there');
is($node->safe_psql('restored', 'SELECT * FROM loyalty.check()'), '', 'the restored books are whole');
is($node->safe_psql('restored', "SELECT status FROM loyalty.redeem_voucher('$token[0]', 'after')"), 'redeemed', 'a token from before the dump is redeemed');
is($node->safe_psql('restored', q{SELECT voucher_id > (SELECT max(voucher_id) FROM printed) FROM loyalty.make_voucher(1, 'amount', 1)}), 't', 'and new ones are made');

# ---- no secret was said
my $said = slurp_file($node->logfile) . `pg_restore -f - $dump`;
my @leaked = grep { $said =~ /$secret{$_}/i || $said =~ /${\ substr($secret{$_}, 1)}/i } sort keys %secret;
is("@leaked", '', 'no secret is in the log or in the dump');
like($said, qr/LY602|the key file cannot be used/, 'though the log tells of the broken files');
$node->stop;
done_testing();
