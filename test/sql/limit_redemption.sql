-- velocity limits on redemptions: how many points may go in any window, for each subject
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS loyalty CASCADE;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Spending', time_zone => 'UTC', point_value => 0.01) AS program;
SELECT loyalty.enroll(1, name) AS member FROM unnest(ARRAY['ann', 'bea', 'cid', 'dan', 'eve', 'flo', 'gus']) name;
SELECT loyalty.adjust(m, 10000, 'given', 'start ' || m) AS seq FROM generate_series(1, 7) m;
-- what a statement raises; the times in it differ from run to run
CREATE FUNCTION pg_temp.refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', SQLSTATE, SQLERRM, regexp_replace(detail, 'again from .*$', 'again from (then).'), hint);
END
$$;
CREATE VIEW pg_temp.uses AS
    SELECT l.name, u.subject, u.granted, u.active, h.lapsed FROM loyalty.limit_use u JOIN loyalty.velocity_limit l USING (limit_id) LEFT JOIN loyalty.limit_hold h USING (source_id, limit_id) ORDER BY u.source_id, l.name;

-- what is not valid
SELECT loyalty.add_limit(1, 'x', 3, '1 day', event => 'redemption');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', event => 'redemption', verdict => 'reject', subject => 'redemption.nothing');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', event => 'redemption', verdict => 'reject', subject => 'purchase.store');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', subject => 'redemption.store');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', event => 'redemption', verdict => 'reject', condition => 'member.tier_rank > 1');
SELECT loyalty.create_program('Worthless') AS program;
SELECT loyalty.add_limit(2, 'x', 3, '1 day', event => 'redemption', measure => 'amount', verdict => 'reject');
SELECT loyalty.add_rule(1, 'x', 'redemption', 'bonus', '1');

-- counts: of a member
SELECT loyalty.add_limit(1, 'two a day', 2, '1 day', event => 'redemption', verdict => 'reject');
SELECT redeemed FROM loyalty.redeem(1, 100, 'a1');
SELECT redeemed FROM loyalty.redeem(1, 100, 'a2');
SELECT pg_temp.refused('SELECT loyalty.redeem(1, 100, ''a3'')');
SELECT pg_temp.refused('SELECT loyalty.redeem(1, 100, ''a3'', partial => true)');
-- a key that is used again asks nothing
SELECT redeemed FROM loyalty.redeem(1, 100, 'a2');
SELECT name, event, measure, maximum, used, "left", verdict FROM loyalty.limit_status(1);
-- nothing changed: neither points nor the key
SELECT available FROM loyalty.balance(1);
SELECT * FROM pg_temp.uses;
-- a part that is undone gives no count back, the whole does, once
SELECT restored FROM loyalty.undo(1, 'a2', 40, 'u1');
SELECT used FROM loyalty.limit_status(1);
SELECT restored FROM loyalty.undo(1, 'a2', 60, 'u2');
SELECT restored FROM loyalty.undo(1, 'a2', 60, 'u2');
SELECT used FROM loyalty.limit_status(1);
SELECT redeemed FROM loyalty.redeem(1, 100, 'a3');
SELECT pg_temp.refused('SELECT loyalty.redeem(1, 100, ''a4'')');
SELECT * FROM loyalty.check();

-- points: of a store, over all members
SELECT loyalty.retire_limit(1, 'two a day');
SELECT loyalty.add_limit(1, 'store', 1000, '1 hour', event => 'redemption', measure => 'points', subject => 'redemption.store', verdict => 'reject', subject_kind => 'store');
SELECT redeemed FROM loyalty.redeem(1, 700, 'b1', store => 's1');
SELECT pg_temp.refused('SELECT loyalty.redeem(2, 301, ''b2'', store => ''s1'')');
SELECT pg_temp.refused('SELECT loyalty.redeem(2, 1001, ''b2'', store => ''s1'')');
SELECT redeemed FROM loyalty.redeem(2, 300, 'b2', store => 's1');
SELECT redeemed FROM loyalty.redeem(2, 300, 'b3', store => 's2');
SELECT redeemed FROM loyalty.redeem(2, 3000, 'b4');
SELECT pg_temp.refused('SELECT loyalty.hold(3, 1, ''b5'', store => ''s1'')');
-- a part undone gives its points back
SELECT restored FROM loyalty.undo(1, 'b1', 150, 'u3');
SELECT redeemed FROM loyalty.redeem(3, 150, 'b6', store => 's1');
SELECT pg_temp.refused('SELECT loyalty.redeem(3, 1, ''b7'', store => ''s1'')');
-- blocked
SELECT loyalty.block_subject(1, 'store', 's9', reason => 'closed');
SELECT pg_temp.refused('SELECT loyalty.redeem(3, 1, ''b8'', store => ''s9'')');
SELECT loyalty.unblock_subject(1, 'store', 's9');
SELECT redeemed FROM loyalty.redeem(3, 1, 'b8', store => 's9');
SELECT * FROM loyalty.check();

-- holds: captured in part, released, and ended by themselves
SELECT held FROM loyalty.hold(4, 600, 'h1', store => 's4');
SELECT held FROM loyalty.hold(4, 300, 'h2', store => 's4');
SELECT pg_temp.refused('SELECT loyalty.redeem(5, 101, ''h3'', store => ''s4'')');
SELECT held FROM loyalty.hold(4, 600, 'h1', store => 's4');
SELECT redeemed FROM loyalty.capture(4, 'h1', 400);
SELECT redeemed FROM loyalty.capture(4, 'h1', 400);
SELECT redeemed FROM loyalty.redeem(5, 300, 'h3', store => 's4');
SELECT loyalty.release(4, 'h2'), loyalty.release(4, 'h2');
SELECT redeemed FROM loyalty.redeem(5, 300, 'h4', store => 's4');
SELECT pg_temp.refused('SELECT loyalty.redeem(5, 1, ''h5'', store => ''s4'')');
SELECT restored FROM loyalty.undo(4, 'h1');
SELECT redeemed FROM loyalty.redeem(5, 400, 'h6', store => 's4');
SELECT held FROM loyalty.hold(4, 900, 'h7', ttl => '20 milliseconds', store => 's5');
SELECT held FROM loyalty.hold(4, 80, 'h8', store => 's5');
SELECT pg_sleep(0.05);
SELECT * FROM loyalty.check();
-- another member finds the room of the hold that ended, whoever writes down that it did
SELECT redeemed FROM loyalty.redeem(6, 920, 'h9', store => 's5');
SELECT pg_temp.refused('SELECT loyalty.redeem(6, 1, ''h10'', store => ''s5'')');
SELECT pg_temp.refused('SELECT loyalty.capture(4, ''h7'')');
SELECT loyalty.release(4, 'h7');
SELECT pg_temp.refused('SELECT loyalty.redeem(6, 1, ''h10'', store => ''s5'')');
SELECT * FROM pg_temp.uses WHERE subject = 's5';
SELECT * FROM loyalty.check();

-- money, and what may be partial
SELECT loyalty.add_limit(1, 'money', 7.55, '1 hour', event => 'redemption', measure => 'amount', subject => 'redemption.cashier', verdict => 'clip',
    condition => 'redemption.money >= 1 AND redemption.order_amount IS DISTINCT FROM 99');
SELECT redeemed, money FROM loyalty.redeem(7, 500, 'm1', cashier => 'c1');
SELECT redeemed, money FROM loyalty.redeem(7, 99, 'm2', cashier => 'c1');
SELECT redeemed, money FROM loyalty.redeem(7, 200, 'm3', cashier => 'c1', order_amount => 99);
SELECT pg_temp.refused('SELECT loyalty.redeem(7, 300, ''m4'', cashier => ''c1'')');
SELECT redeemed, money FROM loyalty.redeem(7, 300, 'm4', cashier => 'c1', partial => true);
SELECT redeemed, money FROM loyalty.redeem(7, 300, 'm4', cashier => 'c1', partial => true);
SELECT pg_temp.refused('SELECT loyalty.redeem(7, 300, ''m5'', cashier => ''c1'', partial => true)');
SELECT verdict, reason, wanted, used, granted, points_wanted, points FROM loyalty.limit_decision ORDER BY decision_id;
SELECT restored, money FROM loyalty.undo(7, 'm1', 125, 'u4');
SELECT held, money FROM loyalty.hold(7, 300, 'm5', cashier => 'c1', partial => true);
SELECT redeemed, money FROM loyalty.capture(7, 'm5', 100);
SELECT held, money FROM loyalty.hold(7, 300, 'm6', cashier => 'c1', partial => true);
SELECT * FROM loyalty.check();
-- whole steps and the minimum
SELECT loyalty.change_program(1, '{"redeem_step": 50, "redeem_min": 100}');
SELECT loyalty.add_limit(1, 'steps', 390, '1 hour', event => 'redemption', measure => 'points', subject => 'redemption.reference', verdict => 'clip', condition => 'redemption.operation = ''redeem''');
SELECT redeemed FROM loyalty.redeem(7, 200, 's1', reference => 'r');
SELECT redeemed FROM loyalty.redeem(7, 500, 's2', reference => 'r', partial => true);
SELECT pg_temp.refused('SELECT loyalty.redeem(7, 500, ''s3'', reference => ''r'', partial => true)');
SELECT loyalty.change_program(1, '{"redeem_step": 1, "redeem_min": 1}');

-- allow writes it down
SELECT loyalty.add_limit(1, 'watched', 1, '1 hour', event => 'redemption', verdict => 'allow', condition => 'redemption.operation = ''transfer''');
SELECT loyalty.transfer(7, 6, 10, 't1'), loyalty.transfer(7, 6, 10, 't2');
SELECT d.verdict, d.reason, wanted, used, granted, points_wanted, points FROM loyalty.limit_decision d JOIN loyalty.velocity_limit l USING (limit_id) WHERE l.name = 'watched' ORDER BY decision_id;
-- transfers are the giver's, and are never cut
SELECT loyalty.add_limit(1, 'gifts', 100, '1 hour', event => 'redemption', measure => 'points', verdict => 'clip', condition => 'redemption.operation = ''transfer''');
SELECT loyalty.transfer(6, 7, 90, 't3');
SELECT pg_temp.refused('SELECT loyalty.transfer(6, 7, 11, ''t4'')');
SELECT loyalty.transfer(6, 7, 90, 't3'), loyalty.transfer(7, 6, 90, 't5');
SELECT name, used, "left" FROM loyalty.limit_status(6) WHERE event = 'redemption';
-- claims: the points of a reward
SELECT loyalty.add_reward(1, 'mug', 'access', points => 400) IS NOT NULL AS made;
SELECT loyalty.add_limit(1, 'mugs', 500, '1 hour', event => 'redemption', measure => 'points', subject => 'redemption.reference', verdict => 'reject', condition => 'redemption.operation = ''claim''');
SELECT points FROM loyalty.claim(6, 'mug', 'k1');
SELECT pg_temp.refused('SELECT loyalty.claim(7, ''mug'', ''k2'')');
SELECT points FROM loyalty.claim(6, 'mug', 'k1');
SELECT restored FROM loyalty.undo_claim(6, 'k1', 'sent back');
SELECT restored FROM loyalty.undo_claim(6, 'k1', 'sent back');
SELECT points FROM loyalty.claim(7, 'mug', 'k2');
SELECT * FROM loyalty.check();

-- a return of goods paid with points gives room back
SELECT loyalty.add_limit(1, 'tender', 300, '1 hour', event => 'redemption', measure => 'points', subject => 'redemption.store', verdict => 'reject', condition => 'redemption.store = ''web''');
SELECT redemption_id AS paid FROM loyalty.redeem(6, 300, 'w1', store => 'web') \gset
INSERT INTO loyalty.purchase (member_id, amount, paid_with_points, redemption_id, reference) VALUES (6, 6, 3, :paid, 'w1');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('purchase', 'w1', 2);
SELECT redeemed FROM loyalty.redeem(6, 100, 'w2', store => 'web');
SELECT pg_temp.refused('SELECT loyalty.redeem(6, 1, ''w3'', store => ''web'')');
SELECT * FROM loyalty.check();
-- in a household each spends for itself, and what comes back is whose it was
SELECT loyalty.retire_limit(1, name) FROM loyalty.velocity_limit WHERE retired_at IS NULL;
SELECT loyalty.add_limit(1, 'each', 200, '1 hour', event => 'redemption', measure => 'points', verdict => 'reject', condition => 'redemption.reference = ''home''');
SELECT loyalty.create_household(1, 'home') AS home \gset
SELECT loyalty.join_household(1, :home) > 0, loyalty.join_household(2, :home) > 0;
SELECT redeemed FROM loyalty.redeem(1, 200, 'f1', reference => 'home');
SELECT pg_temp.refused('SELECT loyalty.redeem(1, 1, ''f2'', reference => ''home'')');
SELECT redeemed FROM loyalty.redeem(2, 150, 'f3', reference => 'home');
SELECT loyalty.leave_household(1);
SELECT restored FROM loyalty.undo(1, 'f1', 80, 'f4');
SELECT (SELECT used FROM loyalty.limit_status(1) WHERE name = 'each') AS first, (SELECT used FROM loyalty.limit_status(2) WHERE name = 'each') AS second;
SELECT * FROM loyalty.check();
-- a hold that uses something else than it holds, and room that was given away twice, are found
SELECT held FROM loyalty.hold(4, 70, 'z1', reference => 'home');
BEGIN;
UPDATE loyalty.limit_hold SET granted = granted - 1 WHERE held_until > now() AND granted = 70;
SELECT DISTINCT invariant FROM loyalty.check() ORDER BY 1;
ROLLBACK;
BEGIN;
UPDATE loyalty.limit_hold SET lapsed = true WHERE held_until > now() AND granted = 70;
SELECT DISTINCT invariant FROM loyalty.check() ORDER BY 1;
ROLLBACK;
BEGIN;
DELETE FROM loyalty.limit_hold WHERE held_until > now() AND granted = 70;
SELECT DISTINCT invariant FROM loyalty.check() ORDER BY 1;
ROLLBACK;
