# Personal data sent as bind parameters is in no data file, log, write-ahead log or dump; keys rotate; a dump and its restore.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use File::Find;
use Test::More;

my $keys = PostgreSQL::Test::Utils::tempdir() . '/keys';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "extension_destdir = '$ENV{STAGE}'\ndynamic_library_path = '$ENV{STAGE}$ENV{PKGLIBDIR}:\$libdir'\nfsync = off\nautovacuum = off\nloyalty.key_file = '$keys'\n"
	. "session_preload_libraries = 'auto_explain'\nauto_explain.log_min_duration = 0\nauto_explain.log_nested_statements = on\nauto_explain.log_verbose = off\nauto_explain.log_level = log\n"
	. "log_min_duration_statement = 0\nlog_statement = all\nlog_parameter_max_length = 0\nlog_parameter_max_length_on_error = 0\nlog_min_error_statement = error\nlog_error_verbosity = verbose\n");
$node->start;

# one value of one query
sub ask { return $node->safe_psql('postgres', $_[0]); }

# the SQLSTATE and message of a statement that fails
sub refusal
{
	my ($out, $err) = ('', '');
	$node->psql('postgres', "\\set VERBOSITY verbose\n$_[0]", stdout => \$out, stderr => \$err);
	return $err =~ /ERROR:\s+(\w+): (.*)\n/ ? "$1 $2" : "no error: $out$err";
}

# write the key file
sub write_keys
{
	unlink $keys;
	open my $file, '>', $keys or die;
	print $file "$_\n" for @_;
	close $file;
	chmod 0600, $keys;
}

# a statement whose variables travel as bind parameters, once
my $script = PostgreSQL::Test::Utils::tempdir() . '/bind.pgbench';
sub bind_call
{
	my ($statement, %value) = @_;
	open my $file, '>', $script or die;
	print $file "$statement;\n";
	close $file;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'pgbench', '-n', '-M', 'extended', '-t', '1', (map { ('-D', "$_=$value{$_}") } sort keys %value), '-f', $script, $node->connstr('postgres') ], '>', \$out, '2>', \$err);
	return $err;
}

# the files of the server, its log and a dump that contain a text as it is or in hexadecimal digits
sub places
{
	my ($text) = @_;
	my $hex = unpack 'H*', $text;
	my $dump = $node->backup_dir . '/secrecy.sql';
	ask('CHECKPOINT');
	PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-f', $dump, $node->connstr('postgres'));
	my %place;
	my $look = sub {
		my ($name, $file) = @_;
		return unless -f $file;
		my $content = slurp_file($file);
		$place{$name}++ if index($content, $text) >= 0 || index(lc $content, $hex) >= 0;
	};
	find({ no_chdir => 1, wanted => sub { $look->($File::Find::name =~ /pg_wal/ ? 'wal' : 'data', $File::Find::name) } }, $node->data_dir);
	$look->('log', $node->logfile);
	$look->('dump', $dump);
	return join ' ', sort keys %place;
}

my %line = map { $_ => [ "$_ xchacha20 " . "5${_}" x 32, (10 + $_) . ' index ' . "a${_}" x 32 ] } 1 .. 2;
ask(q{CREATE EXTENSION loyalty; SELECT loyalty.create_program('Club'); SELECT loyalty.enroll(1, name) FROM unnest('{ann,bea,cid}'::text[]) name;});

# ---- without keys
like(refusal(q{SELECT loyalty.set_person(1, '{"name": "x"}')}), qr/^LY602 /, 'no key file');
write_keys('1 ed25519 ' . '1' x 64);
like(refusal(q{SELECT loyalty.set_person(1, '{"name": "x"}')}), qr/^LY601 no key of the key file may seal/, 'no key that seals');
like(refusal(q{SELECT loyalty.find_member(1, 'email', 'a@b.example')}), qr/^LY601 no key of the key file may index/, 'no key that indexes');
is(ask(q{INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 10) RETURNING status}), 'completed', 'the engine runs without');
write_keys("1 xchacha20 ${\ ('0' x 64)} signing");
like(refusal(q{SELECT loyalty.person(1); SELECT loyalty.set_person(1, '{"name": "x"}')}), qr/^LY602/, 'a kind has statuses of its own');

# ---- canaries
write_keys(@{ $line{1} });
my %canary = (name => 'CanaryName', street => 'CanaryStreet', mail => 'canary-mail@nest.example', later => 'canary-later@nest.example', bad => 'CanaryPhone', phone => '+447700900123', card => '4006381333931');
is(bind_call('SELECT loyalty.set_person(1, :fields)', fields => qq({"name": "$canary{name}", "address": {"street": "$canary{street}"}})), '', 'fields, as bind parameters');
is(bind_call('SELECT loyalty.set_contact(1, :kind, :value)', kind => $_->[0], value => $_->[1]), '', "$_->[0], as bind parameters")
	for [ 'email', $canary{mail} ], [ 'phone', $canary{phone} ], [ 'card', $canary{card} ];
is(bind_call('SELECT loyalty.find_member(1, :kind, :value)', kind => 'email', value => $canary{mail}), '', 'a look-up, as bind parameters');
like(bind_call('SELECT loyalty.set_contact(2, :kind, :value)', kind => 'email', value => uc $canary{mail}), qr/belongs to another member/, 'a contact that is taken');
like(bind_call('SELECT loyalty.set_contact(2, :kind, :value)', kind => 'phone', value => $canary{bad}), qr/not a contact of its kind/, 'a contact that is none');
is(bind_call('SELECT loyalty.set_person(3, :fields)', fields => qq({"name": "$canary{later}"})), '', 'a third person');
is(ask(q{SELECT loyalty.erase_member(3, 'asked for')}), 't', 'is erased');
is(ask(q{SELECT loyalty.person(1) ->> 'name', jsonb_array_length(loyalty.person(1) -> 'contacts')}), "$canary{name}|3", 'what was sealed opens');
is(places($_), '', "nobody kept $_") for sort values %canary;
is(places(uc $canary{mail}), '', 'in capitals neither');

# ---- the search does find what is not sealed, and the log what is not bound
ask(q{INSERT INTO loyalty.person (member_id, field, sealed) SELECT 2, 'name', convert_to('Mutant' || 'Canary' || repeat('.', 70), 'UTF8')});
is(places('MutantCanary'), 'data dump wal', 'a value that was not sealed is found in data, write-ahead log and dump');
ask(q{DELETE FROM loyalty.person WHERE member_id = 2; SELECT loyalty.set_person(2, '{"name": "LiteralCanary"}')});
is(places('LiteralCanary'), 'log', 'a literal is found in the log, and there alone');

# ---- rotation
sub key_state { return ask(q{SELECT string_agg(DISTINCT key_id::text, ','), (SELECT string_agg(DISTINCT index_key_id || '/' || key_id, ',') FROM loyalty.identity) FROM loyalty.person}); }
ask(q{SELECT loyalty.set_contact(2, 'telegram', 't' || i) FROM generate_series(1, 50) i});
my $before = ask('SELECT loyalty.person(1), loyalty.person(2)');
is(key_state(), '1|11/1', 'the first keys');
write_keys("$line{1}[0] opening", "$line{1}[1] finding", @{ $line{2} });
is(ask(q{SELECT loyalty.find_member(1, 'telegram', 't7')}), '2', 'found under the old key');
ask(q{SELECT loyalty.set_contact(1, 'telegram', 'new'); SELECT loyalty.set_contact(2, 'telegram', 't7')});
like(refusal(q{SELECT loyalty.set_contact(1, 'telegram', 't7')}), qr/^LY621/, 'taken under the old key');
is(ask(q{SELECT loyalty.find_member(1, 'telegram', 'new')}), '1', 'and under the new one');
ask('SELECT loyalty.remove_contact(1, $$telegram$$, $$new$$)');
ask('CALL loyalty.reseal(7)');
is(key_state(), '2|12/2', 'all is under the new keys');
write_keys("$line{1}[0] retired", "$line{1}[1] retired", @{ $line{2} });
is(ask('SELECT loyalty.person(1), loyalty.person(2)'), $before, 'and opens without the old ones');
is(ask(q{SELECT loyalty.find_member(1, 'telegram', 't7'), loyalty.find_member(1, 'email', 'canary-mail@nest.example')}), '2|1', 'and is found');
write_keys("$line{2}[0] retired", @{ $line{1} });
like(refusal('SELECT loyalty.person(1)'), qr/^LY603 key 2 is retired/, 'a retired key opens nothing');
write_keys('2 xchacha20 ' . 'f' x 64, @{ $line{1} });
like(refusal('SELECT loyalty.person(1)'), qr/^LY623 /, 'another key of the same number neither');
write_keys(@{ $line{2} });

# ---- a dump and its restore: all is there, and nothing was audited twice
ask(q{SELECT loyalty.give_consent(1, 'marketing', 'email', 'form'); SELECT loyalty.change_program(1, '{"redeem_min": 5}'); SELECT loyalty.enroll(1, 'dan', staff => true)});
my $everything = q{SELECT md5(string_agg(t::text, ',' ORDER BY t::text)), count(*) > 60 FROM (SELECT to_jsonb(p) FROM loyalty.person p UNION ALL SELECT to_jsonb(i) FROM loyalty.identity i
	UNION ALL SELECT to_jsonb(a) FROM loyalty.audit a UNION ALL SELECT to_jsonb(c) FROM loyalty.consent_change c UNION ALL SELECT to_jsonb(e) FROM loyalty.erasure e) t};
my $dump = $node->backup_dir . '/secrecy.dump';
$node->command_ok([ 'pg_dump', '--format=custom', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
ask('CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-j', '2', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'pg_restore, in parallel');
is($node->safe_psql('restored', $everything), ask($everything), 'everything is there');
is($node->safe_psql('restored', 'SELECT loyalty.person(1), loyalty.person(2)'), $before, 'and opens');
is($node->safe_psql('restored', q{SELECT loyalty.change_program(1, '{"redeem_min": 6}'); SELECT old ->> 'redeem_min' FROM loyalty.audit ORDER BY audit_id DESC LIMIT 1}), "\n5", 'and the audit goes on');
is(ask('SELECT * FROM loyalty.check()'), '', 'the books are whole');

# ---- no secret was said
my $said = slurp_file($node->logfile) . `pg_restore -f - $dump`;
is(join(' ', grep { $said =~ /(?:5$_){20}|(?:a$_){20}/ } 1 .. 2), '', 'no key is in the log or in the dump');
$node->stop;
done_testing();
