# Chains and their keys outside of one session: no key, a key, rotation, a stolen key, another key, a dump.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $keys = PostgreSQL::Test::Utils::tempdir() . '/keys';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\nlog_statement = all\nlog_min_messages = debug1\nloyalty.key_file = '$keys'\n");
$node->start;

# one value of one query
sub ask { return $node->safe_psql('postgres', $_[0]); }

# write the key file, as an editor does
sub write_keys
{
	my ($text, $mode) = @_;
	open my $file, '>', "$keys.new" or die;
	print $file $text;
	close $file;
	chmod $mode // 0600, "$keys.new";
	rename "$keys.new", $keys;
}

# one purchase of each member, in a new session; how they are chained
sub buy
{
	my ($out, $err) = ('', '');
	$node->psql('postgres', 'INSERT INTO loyalty.purchase (member_id, amount) SELECT member_id, 10 FROM loyalty.member ORDER BY 1', stdout => \$out, stderr => \$err);
	return ask(q{SELECT string_agg(DISTINCT CASE length(hash) WHEN 33 THEN get_byte(hash, 0)::text ELSE length(hash)::text || ' bytes' END, ',') FROM loyalty.entry JOIN loyalty.account USING (account_id, seq)}) . ($err =~ /WARNING:\s+(.*)/ ? " $1" : $err);
}
# what verify says, in short
sub verify { my $arguments = $_[0] // ''; return ask("SELECT string_agg(format('%s/%s %s', account_id, seq, problem), ', ' ORDER BY account_id) FROM loyalty.verify($arguments)"); }

ask(q{CREATE EXTENSION loyalty; SELECT loyalty.create_program('Club'); SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount'); SELECT loyalty.enroll(1, n) FROM unnest('{ann,bea}'::text[]) n;});
my @line = map { ask("SELECT loyalty.make_key($_, 'blake2b')") } 1 .. 9;
like($line[0], qr/^1 blake2b [0-9a-f]{64} chaining$/, 'make_key makes a line');
my $signing = ask('SELECT loyalty.make_key(20)');

is(buy(), '32 bytes the key file cannot be used: entries are chained without a key', 'a file that is not there: a warning, and the sale goes through');
is(verify(), '', 'and the chain is whole');
write_keys("# nothing\n$signing\n");
is(buy(), '32 bytes', 'no key that chains: no key');
write_keys("$line[0]\n$signing\n");
is(buy(), '1', 'a key chains from the next session on');
is(verify(), '', 'behind entries without a key');
is(ask('SELECT * FROM loyalty.check()'), '', 'and check finds nothing');
is(verify("keyed_from => '-infinity'"), '1/1 no key, 2/1 no key', 'entries without a key are reported where all must have one');
is(ask('SELECT string_agg(key_id::text, \',\') FROM loyalty.voucher_keys()'), '20', 'keys of chains are no keys of vouchers');
ask("SELECT token FROM loyalty.make_voucher(1, 'amount', 5)");
write_keys("$line[0]\n$line[1]\n$signing\n");
is(buy(), '2', 'the last key chains');
is(verify(), '', 'and the one before verifies');
is(ask("INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 1); COPY (SELECT 1) TO PROGRAM 'cp -p $keys $keys.old && grep -v \"^2 \" $keys.old >$keys.next && chmod 600 $keys.next && mv $keys.next $keys'; INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 1); SELECT string_agg(get_byte(hash, 0)::text, ',' ORDER BY seq DESC) FILTER (WHERE seq > 4) FROM loyalty.entry WHERE account_id = 1"), '1,2', 'a session notices another file at its next statement');
is(verify(), '1/4 unknown key, 2/4 unknown key', 'a key that is gone: its first entry is named');
is(ask('SELECT DISTINCT invariant FROM loyalty.check()'), 'entries are chained', 'by check too');
write_keys("$line[0]\n" . $line[1] =~ s/chaining/retired/r . "\n");
is(verify(), '1/4 retired key, 2/4 retired key', 'a retired key: what it chained is reported');
write_keys("$line[0]\n" . $line[2] =~ s/^3/2/r . "\n");
is(verify(), '1/4 hash, 2/4 hash', 'another key under its number: the hashes are wrong');
write_keys("$line[0]\n$line[1]\n");
is(verify(), '', 'and with the right one all is well');
write_keys("$line[0]\n$line[1]\n", 0644);
is(buy(), '32 bytes the key file cannot be used: entries are chained without a key', 'a file that others may read is not used');
write_keys("$line[0]\n$line[1]\n");
is(verify(), '1/7 no key, 2/5 no key', 'an entry without a key behind one that has one is reported');
is(verify("keyed_from => 'infinity'"), '', 'and accepted by who knows of it');

# a dump and its restore, with the key file and without
ask("ALTER TABLE loyalty.entry DISABLE TRIGGER refuse_change; DELETE FROM loyalty.entry WHERE length(hash) = 32 AND seq > 2; ALTER TABLE loyalty.entry ENABLE TRIGGER refuse_change");
is(verify(), '1/7 cut, 2/5 cut', 'and taking it away again is found');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
ask('CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], 'restore');
is($node->safe_psql('copy', 'SELECT account_id, seq, problem FROM loyalty.verify() ORDER BY 1'), "1|7|cut\n2|5|cut", 'a copy says the same as its original');

# no secret got anywhere
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ s/.*make_key.*//gr;
my $leaks = 0;
for my $line (@line, $signing) { my $secret = (split / /, $line)[2]; $leaks++ if index($log, $secret) >= 0 || index(PostgreSQL::Test::Utils::slurp_file($dump), $secret) >= 0; }
is($leaks, 0, 'no secret is in the log or in a dump');
$node->stop;
done_testing();
