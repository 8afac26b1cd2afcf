-- bad input gets a clear error and changes nothing
\set ECHO queries
\set VERBOSITY verbose
\set SHOW_CONTEXT never
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text, detail text, hint text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    message := regexp_replace(message, 'transaction \d+|purchase \d+', 'purchase N');
    detail := regexp_replace(detail, 'Transaction \d+', 'Transaction N');
    RETURN NEXT;
END
$$;
\x on
SELECT count(*) AS entries FROM loyalty.entry \gset
SELECT * FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount) VALUES (99, 1)');
SELECT * FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, -1)');
SELECT * FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, ''NaN'')');
SELECT * FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, ''Infinity'')');
SELECT * FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 1e30)');
SELECT * FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount) VALUES (1, 0.00001)');
SELECT * FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount, tax) VALUES (1, 10, 11)');
SELECT * FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount, occurred_at) VALUES (1, 1, ''infinity'')');
SELECT * FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount, occurred_at) VALUES (1, 1, ''1850-01-01'')');
SELECT state, message FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount, occurred_at) VALUES (1, 1, now() + interval ''2 days'')');
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, lines) VALUES (1, 10, loyalty.lines('[{"sku": "TEA", "amount": 9}]'))$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, lines) VALUES (1, 10, loyalty.lines('[{"sku": "TEA"}]'))$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, lines) VALUES (1, 10, loyalty.lines('[{"sku": "TEA", "price": 10}]'))$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, lines) VALUES (1, 10, loyalty.lines('[{"sku": "TEA", "amount": "ten"}]'))$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, currency) VALUES (1, 10, 'USD')$$);
SELECT state, message FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (2, 10, 'U1')$$);
-- rules
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', 'purchase.amonut')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', 'purchase.amount +')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', '1', 'purchase.store')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', '1', 'line.sku = ''x''')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', 'random()')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', '(SELECT 1)')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', '1', 'purchase.day = current_date')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', '1', 'purchase.day = date ''today''')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', '1; DROP TABLE loyalty.entry')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', 'pg_read_file(''/etc/passwd'')::numeric')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', repeat('1+', 5000) || '1')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'purchase', 'base', repeat('1+', 3000) || '1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'r', 'visit', 'base', '1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', '1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_rule(9, 'base', 'purchase', 'base', '1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.retire_rule(1, 'nonesuch')$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.rule_version SET points = '1000'$$);
-- a rule that overflows, goes negative or divides by zero fails the sale where the programme says so
SELECT loyalty.add_rule(1, 'bomb', 'purchase', 'bonus', '10 ^ purchase.amount', 'purchase.store = ''bomb''') > 0 AS added;
SELECT loyalty.add_rule(1, 'negative', 'purchase', 'bonus', '0 - purchase.amount', 'purchase.store = ''negative''') > 0 AS added;
SELECT loyalty.add_rule(1, 'division', 'purchase', 'bonus', '1 / (purchase.amount - 10)', 'purchase.store = ''division''') > 0 AS added;
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, store) VALUES (1, 100, 'bomb')$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, store) VALUES (1, 10, 'negative')$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, store) VALUES (1, 10, 'division')$$);
-- programmes, tiers, members
SELECT * FROM pg_temp.refused($$SELECT loyalty.create_program('x', time_zone => 'Mars/Olympus')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.create_program('x', currency => 'euros')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.create_program('x', points_scale => 9)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_tier(1, 'Tin', 100, 'spend')$$);
SELECT * FROM pg_temp.refused($$DELETE FROM loyalty.member$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.member SET program_id = 2$$);
SELECT * FROM pg_temp.refused($$DELETE FROM loyalty.purchase$$);
SELECT * FROM pg_temp.refused($$TRUNCATE loyalty.purchase$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.entry SET points = 1$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.purchase SET purchase_id = 1000 WHERE purchase_id = 1$$);
SELECT loyalty.close_member(loyalty.enroll(1, 'zoe'));
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount) SELECT member_id, 10 FROM loyalty.member WHERE external_id = 'zoe'$$);
-- points by hand
SELECT * FROM pg_temp.refused($$SELECT loyalty.adjust(1, 10, ' ')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.adjust(1, 0, 'nothing')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.adjust(77, 10, 'unknown')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.release_award(1)$$);
-- the engine's own functions are not for tables or callers of one's own
CREATE TABLE forged (LIKE loyalty.purchase);
CREATE TRIGGER forge AFTER INSERT ON forged REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.award();
SELECT * FROM pg_temp.refused($$INSERT INTO forged (purchase_id, member_id, amount, occurred_at, recorded_at, status, source) VALUES (1, 1, 1000000, now(), now(), 'completed', 'forged')$$);
DROP TABLE forged;
\x off
SELECT count(*) = :entries AS nothing_changed FROM loyalty.entry;
SELECT * FROM loyalty.check();
