# Checkpoints: sealing, proofs that a program without a server checks, and what only a checkpoint that was kept elsewhere finds.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\nmax_connections = 50\nloyalty.key_file = '$dir/keys'\n");
$node->start;

# one value of one query
sub ask { return $node->safe_psql('postgres', $_[0]); }

# what a statement is refused with
sub refusal
{
	my ($out, $err) = ('', '');
	$node->psql('postgres', "\\set VERBOSITY verbose\n$_[0]", stdout => \$out, stderr => \$err);
	return $err =~ /ERROR:\s+(.*)/ ? $1 : "no error: $out$err";
}

# write a file
sub put
{
	my ($name, $text, $mode) = @_;
	open my $file, '>', "$dir/$name" or die;
	print $file $text;
	close $file;
	chmod $mode // 0600, "$dir/$name";
	return "$dir/$name";
}

# the server's notices of a statement
sub call
{
	my ($out, $err) = ('', '');
	$node->psql('postgres', $_[0], stdout => \$out, stderr => \$err);
	return $err =~ s/^psql:\S+ //mgr;
}

ask(q{CREATE EXTENSION loyalty; SELECT loyalty.create_program('Club'); SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount'); SELECT count(loyalty.enroll(1, 'm' || i)) FROM generate_series(1, 600) i;
	INSERT INTO loyalty.purchase (member_id, amount) SELECT 1 + i % 600, i % 90 + 1 FROM generate_series(0, 1799) i; SELECT loyalty.adjust(1, 50, 'gift with "quotes"', 'k1');});
my $chaining = ask("SELECT loyalty.make_key(1, 'blake2b')");
my $signing = ask('SELECT loyalty.make_key(2)');
put('keys', "$chaining\n");
like(refusal('CALL loyalty.seal()'), qr/^LY601: no key of the key file may sign/, 'no key that signs: LY601');
like(refusal('SELECT loyalty.export_checkpoint()'), qr/^LY904: there is no checkpoint/, 'nothing sealed: LY904');
put('keys', "$chaining\n$signing\n");
my $public = ask(q{SELECT string_agg(key_id || ':' || encode(public_key, 'hex'), ',') FROM loyalty.voucher_keys()});
ask(q{INSERT INTO loyalty.purchase (member_id, amount) SELECT 1 + i % 600, i % 90 + 1 FROM generate_series(0, 599) i});
like(call('CALL loyalty.seal(250)'), qr/sealed 600 accounts/, 'three batches');
is(ask('SELECT string_agg(size::text, \',\' ORDER BY size) FROM loyalty.checkpoint'), '250,500,600', 'each with a checkpoint');
like(call('CALL loyalty.seal()'), qr/sealed 0 accounts/, 'nothing new: no checkpoint');
my $first = put('first', ask('SELECT loyalty.export_checkpoint()'));
is(ask('SELECT count(*) FROM loyalty.checkpoint_node'), '2', 'inner nodes are kept');

# an old copy, for later
ask('CREATE SCHEMA kept; CREATE TABLE kept.account AS TABLE loyalty.account; CREATE TABLE kept.entry AS TABLE loyalty.entry');
ask(q{INSERT INTO loyalty.purchase (member_id, amount) SELECT 1 + i % 10, 7 FROM generate_series(1, 30) i; SELECT loyalty.adjust(3, 5, 'x', 'k2')});
is(ask('SELECT * FROM loyalty.verify(incremental => true)'), '', 'what is new is right');
call('CALL loyalty.seal()');
ask(q{INSERT INTO loyalty.purchase (member_id, amount) VALUES (3, 1)});
my $second = put('second', ask('SELECT loyalty.export_checkpoint()'));

# ---- an auditor without a server
sub audit { return audit_by($public, @_); }
sub audit_by
{
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'python3', "$ENV{TESTDIR}/till/verify_proof.py", @_ ], '<', \undef, '>', \$out, '2>', \$err);
	return $out . $err;
}
my $n = 0;
sub proof { return put('proof' . $n++, ask("SELECT $_[0]")); }
like(audit($first), qr/"good": true.*"size": 600/, 'a checkpoint is signed');
like(audit(proof('loyalty.consistency_proof(600)'), '--kept', $first), qr/"good": true.*"size": 610.*"old_size": 600/, 'the second has all of the first');
like(audit(proof('loyalty.consistency_proof(250, 600)')), qr/"good": true/, 'as the first has all of what was before');
like(audit(proof('loyalty.consistency_proof(250, 600)'), '--kept', $first), qr/does not begin with the checkpoint that was kept/, 'and of another beginning it says so');
like(audit(proof('loyalty.consistency_proof(610)')), qr/"good": true/, 'a checkpoint has all of itself');
my ($account, $seq, $points) = split /\|/, ask('SELECT account_id, seq, loyalty.total(lots) FROM kept.account WHERE account_id = 3');
like(audit(proof('loyalty.balance_proof(3, 600)')), qr/"good": true.*"account_id": 3, "seq": $seq, "points": $points/, 'a balance, in the first checkpoint');
like(audit(proof('loyalty.balance_proof(3)')), qr/"good": true.*"seq": @{[ $seq + 4 ]}/, 'and in the last');
my @all = map { proof("loyalty.inclusion_proof(a, s) FROM (SELECT account_id, seq FROM loyalty.entry WHERE account_id IN (1, 3, 600) ORDER BY 1, 2 OFFSET $_ LIMIT 1) AS x (a, s)") } 0 .. 15;
is(() = audit(@all, '--kept', $second, '--key', '1:' . (split / /, $chaining)[2]) =~ /"good": true/g, 16, 'entries, with the chain\'s key');
is(() = audit(@all) =~ /"good": true/g, 16, 'and without it');
like(audit(proof('loyalty.inclusion_proof(3, ' . ($seq + 1) . ')'), '--key', '1:' . '00' x 32), qr/the entry's hash is wrong/, 'with another key of the chain an entry is wrong');
like(audit(proof(q{loyalty.inclusion_proof(1, (SELECT seq FROM loyalty.entry WHERE account_id = 1 AND key = 'k1'))})), qr/"kind": "adjust", "points": 50.*"reason": "gift with \\"quotes\\"", "key": "k1"/, 'the proof says what the entry says');
like(refusal('SELECT loyalty.inclusion_proof(3, ' . ($seq + 5) . ')'), qr/^LY904: entry .* is not in the checkpoint/, 'what is not sealed yet: LY904');
like(refusal('SELECT loyalty.balance_proof(3, 7)'), qr/^LY904: there is no checkpoint of size 7/, 'no such checkpoint: LY904');
like(refusal('SELECT loyalty.consistency_proof(610, 600)'), qr/^LY904: the older checkpoint comes first/, 'the wrong way round: LY904');
# whatever is changed in a proof, it does not hold any more
my ($tried, $held) = (0, 0);
for my $text (map { ask("SELECT $_") } 'loyalty.inclusion_proof(3, 2)', 'loyalty.balance_proof(3)', 'loyalty.consistency_proof(250)')
{
	my @files;
	while ($text =~ /"([0-9a-f]{64,})"/g)
	{
		my ($start, $length) = ($-[1], length $1);
		for my $at (0, int($length / 3), $length - 1)
		{
			my $bad = $text;
			substr($bad, $start + $at, 1) = substr($bad, $start + $at, 1) eq '7' ? '8' : '7';
			push @files, put('bad' . $tried++, $bad);
		}
	}
	$held += () = audit(@files) =~ /"good": true/g;
}
ok($tried > 100, "$tried proofs were damaged");
is($held, 0, 'and none holds');
like(audit(put('cut', substr(ask('SELECT loyalty.balance_proof(3)'), 0, 300))), qr/"good": false/, 'half a proof');
like(audit(put('none', '{"kind": "balance"}')), qr/"good": false.*damaged/, 'no proof');
like(audit_by('2:' . '00' x 32, $first), qr/forged checkpoint/, 'another key signed nothing');
like(audit_by('3:' . substr($public, 2), $first), qr/unknown key/, 'a key that is not known');

# ---- what is done to the books, and whether the checkpoint that was kept finds it
sub damage
{
	my ($what, $expected, $sql) = @_;
	my $out = ask("BEGIN; SET LOCAL session_replication_role = replica; $sql; SET LOCAL session_replication_role = origin; SELECT string_agg(DISTINCT coalesce(account_id || '/' || seq || ' ', '') || problem, ', ') FROM (SELECT * FROM loyalty.verify() UNION ALL SELECT * FROM loyalty.verify_sealed(pg_read_file('$second')::jsonb)) v; ROLLBACK");
	like($out, $expected, $what);
}
damage('nothing', qr/^$/, 'SELECT 1 WHERE false');
my $last = $seq + 5;
damage('an old copy of an account and its entries', qr/3\/@{[ $seq + 4 ]} cut/, 'DELETE FROM loyalty.entry WHERE account_id = 3; INSERT INTO loyalty.entry SELECT * FROM kept.entry WHERE account_id = 3; DELETE FROM loyalty.account WHERE account_id = 3; INSERT INTO loyalty.account SELECT * FROM kept.account WHERE account_id = 3');
damage('an old copy of everything', qr/1\/\d+ cut.*3\/\d+ cut/, 'DELETE FROM loyalty.entry; INSERT INTO loyalty.entry SELECT * FROM kept.entry; DELETE FROM loyalty.account; INSERT INTO loyalty.account SELECT * FROM kept.account');
damage('an old copy of everything, checkpoints included', qr/kept checkpoint/, 'DELETE FROM loyalty.entry; INSERT INTO loyalty.entry SELECT * FROM kept.entry; DELETE FROM loyalty.account; INSERT INTO loyalty.account SELECT * FROM kept.account; DELETE FROM loyalty.checkpoint WHERE size > 600; DELETE FROM loyalty.checkpoint_leaf WHERE number >= 600');
damage('all of an account', qr/600\/4 cut/, 'DELETE FROM loyalty.entry WHERE account_id = 600; DELETE FROM loyalty.account WHERE account_id = 600');
damage('the same, and its leaf', qr/kept checkpoint/, 'DELETE FROM loyalty.entry WHERE account_id = 600; DELETE FROM loyalty.account WHERE account_id = 600; DELETE FROM loyalty.checkpoint_leaf WHERE account_id = 600');
damage('another leaf for an account', qr/600\/9 leaf/, q!UPDATE loyalty.checkpoint_leaf SET seq = 9 WHERE account_id = 600!);
damage('points in a leaf', qr/600\/\d+ leaf/, q!UPDATE loyalty.checkpoint_leaf SET lots = '{[,)=1}' WHERE account_id = 600!);
damage('a leaf and its hash', qr/kept checkpoint/, q!UPDATE loyalty.checkpoint_leaf l SET lots = '{[,)=1}', hash = loyalty.merkle_leaf(loyalty.leaf_bytes(ROW(l.number, l.account_id, l.first_seq, l.seq, l.head, '{[,)=1}', l.tally, l.entries_root, '')::loyalty.checkpoint_leaf)) WHERE account_id = 600!);
damage('two leaves exchanged', qr/kept checkpoint/, q!UPDATE loyalty.checkpoint_leaf SET number = -number - 1 WHERE number IN (3, 4); UPDATE loyalty.checkpoint_leaf SET number = 8 + number WHERE number < 0!);
damage('a leaf in the middle gone', qr/kept checkpoint|checkpoint/, q!DELETE FROM loyalty.checkpoint_leaf WHERE number = 609!);
damage('a root', qr/checkpoint/, q!UPDATE loyalty.checkpoint SET root = sha256('x') WHERE size = 500!);
damage('a time of sealing', qr/checkpoint/, q!UPDATE loyalty.checkpoint SET sealed_at = sealed_at - interval '1 day' WHERE size = 500!);
damage('a signature', qr/checkpoint/, q!UPDATE loyalty.checkpoint SET signature = set_bit(signature, 9, 1 - get_bit(signature, 9)) WHERE size = 500!);
damage('a checkpoint in the middle gone', qr/checkpoint/, q!DELETE FROM loyalty.checkpoint WHERE size = 500!);
like(refusal('UPDATE loyalty.checkpoint SET size = 9'), qr/^LY901/, 'checkpoints are append-only');
like(refusal('DELETE FROM loyalty.checkpoint_leaf'), qr/^LY901/, 'and so are leaves');
like(refusal('TRUNCATE loyalty.checkpoint_node'), qr/^LY505/, 'and nodes');

# ---- broken accounts are left out and named, the others are sealed
ask(q{BEGIN; SET LOCAL session_replication_role = replica; UPDATE loyalty.entry SET reason = 'forged' WHERE account_id = 3 AND seq = } . $last . q{; COMMIT; INSERT INTO loyalty.purchase (member_id, amount) VALUES (4, 1)});
like(call('CALL loyalty.seal()'), qr/1 accounts are broken and were left out.*sealed 1 accounts/s, 'an account with a forged entry is not sealed');
is(ask('SELECT account_id, seq, problem FROM loyalty.verify(incremental => true)'), "3|$last|hash", 'the incremental verification names it');
is(ask('SELECT account_id, seq, problem FROM loyalty.verify()'), "3|$last|hash", 'as the whole one does');
ask(q{BEGIN; SET LOCAL session_replication_role = replica; UPDATE loyalty.entry SET reason = NULL WHERE account_id = 3 AND seq = } . $last . q{; COMMIT});
is(ask('SELECT * FROM loyalty.verify()'), '', 'and all is well again');

# ---- sealing beside traffic with aborts and savepoints: no false alarm
my $script = put('traffic', <<'END', 0644);
\set m random(1, 40)
\set what random(1, 4)
BEGIN;
INSERT INTO loyalty.purchase (member_id, amount) VALUES (:m, 10);
SAVEPOINT s;
INSERT INTO loyalty.purchase (member_id, amount) VALUES (:m, 20);
\if :what = 1
ROLLBACK TO s;
\endif
\if :what = 2
ROLLBACK;
\else
COMMIT;
\endif
END
my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '8', '-j', '2', '-t', $ENV{TRAFFIC} // 150, '-f', $script, $node->connstr('postgres') ], '>', \my $bench_out, '2>', \my $bench_err);
my ($alarms, $seals) = ('', 0);
while ($bench->pumpable && $seals < 1000)
{
	$alarms .= call('CALL loyalty.seal(7)') =~ s/NOTICE:.*\n?//gr;
	$alarms .= ask('SELECT account_id, seq, problem FROM loyalty.verify()') . ask('SELECT account_id, seq, problem FROM loyalty.verify(incremental => true)');
	$seals++;
	$bench->pump_nb;
}
$bench->finish;
call('CALL loyalty.seal()');
is($alarms, '', "no false alarm beside the traffic ($seals seals)");
is(ask('SELECT * FROM loyalty.verify() UNION ALL SELECT * FROM loyalty.verify_sealed()'), '', 'nor after it');
is(ask('SELECT count(*) FROM loyalty.account a WHERE a.seq <> (SELECT max(l.seq) FROM loyalty.checkpoint_leaf l WHERE l.account_id = a.account_id)'), '0', 'and everything is sealed');
is(ask("SELECT * FROM loyalty.verify_sealed(pg_read_file('$first')::jsonb)"), '', 'the books still contain the first checkpoint');
like(audit(proof('loyalty.consistency_proof(600)'), '--kept', $first), qr/"good": true/, 'as the auditor sees without a server');

# ---- a dump carries it all
ask('CREATE DATABASE copy');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", '-N', 'kept', $node->connstr('postgres') ], 'dump');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), "$dir/dump" ], 'restore');
is($node->safe_psql('copy', "SELECT * FROM loyalty.verify() UNION ALL SELECT * FROM loyalty.verify_sealed(pg_read_file('$first')::jsonb)"), '', 'the copy proves what its original does');
$node->stop;
done_testing();
