-- a merge keeps the sum, the days, the tallies and the better tier; what comes back later goes to the one who took over
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, detail text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    detail := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL;
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Merge' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce((SELECT m.member_id FROM loyalty.member m WHERE m.program_id = pg_temp.p() AND m.external_id = who), loyalty.enroll(pg_temp.p(), who, '2020-01-01'));
END $$;
CREATE FUNCTION pg_temp.books(who text) RETURNS TABLE (lots loyalty.lots, tally loyalty.tally, tier text, closed boolean) LANGUAGE sql AS $$
    SELECT a.lots, a.tally, t.name, a.closed FROM loyalty.account a LEFT JOIN loyalty.tier t USING (tier_id) WHERE a.account_id = pg_temp.m(who) $$;
SELECT loyalty.create_program('Merge', expiry => 'never', tier_window => 'lifetime', point_value => 0.01) > 0 AS made;
SELECT loyalty.add_tier(pg_temp.p(), 'Silver', 100) > 0 AS silver, loyalty.add_tier(pg_temp.p(), 'Gold', 250) > 0 AS gold;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS made;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('ann'), '2026-02-01', 160, 'merge test', 'a1'), (pg_temp.m('bob'), '2026-03-01', 120, 'merge test', 'b1'), (pg_temp.m('cid'), '2026-03-01', 30, 'merge test', 'c1');
SELECT loyalty.adjust(pg_temp.m('ann'), 50, 'gift', 'g', '2026-03-01', '2099-01-01');
SELECT redeemed FROM loyalty.redeem(pg_temp.m('ann'), 60, 'r');
SELECT loyalty.merge_members(pg_temp.m('ann'), pg_temp.m('bob'), 'same person') AS moved;
SELECT * FROM pg_temp.books('ann');
SELECT * FROM pg_temp.books('bob');
SELECT tier, cause FROM loyalty.tier_history WHERE member_id = pg_temp.m('bob') ORDER BY valid_to;
SELECT loyalty.merge_members(pg_temp.m('ann'), pg_temp.m('bob'), 'same person') AS again;
-- the first is closed; its redemption is undone, its purchase returned, corrected and voided for the second
SELECT state FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 1, 'r2')$$);
SELECT state FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount) VALUES (pg_temp.m('ann'), 1)$$);
SELECT redeemed FROM loyalty.redeem(pg_temp.m('ann'), 60, 'r');
SELECT restored FROM loyalty.undo(pg_temp.m('ann'), 'r', 20, 'u');
SELECT restored FROM loyalty.undo(pg_temp.m('ann'), 'r');
SELECT restored FROM loyalty.undo(pg_temp.m('ann'), 'r');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('merge test', 'a1', 40);
SELECT * FROM pg_temp.books('bob');
UPDATE loyalty.purchase SET amount = 80 WHERE source = 'merge test' AND reference = 'a1';
SELECT * FROM pg_temp.books('bob');
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'merge test' AND reference = 'a1';
SELECT * FROM pg_temp.books('bob');
SELECT * FROM pg_temp.books('ann');
-- a second merge carries the first along
SELECT loyalty.merge_members(pg_temp.m('bob'), pg_temp.m('cid'), 'same person') AS moved;
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('merge test', 'b1');
SELECT * FROM pg_temp.books('cid');
SELECT m.external_id, i.external_id AS into FROM loyalty.account a JOIN loyalty.member m ON m.member_id = a.account_id JOIN loyalty.member i ON i.member_id = a.merged_into WHERE a.program_id = pg_temp.p() ORDER BY 1;
-- debts are settled on either side
SELECT loyalty.adjust(pg_temp.m('dan'), -30, 'fraud', 'f'), loyalty.adjust(pg_temp.m('eve'), 100, 'gift', 'g'), loyalty.adjust(pg_temp.m('fay'), -500, 'fraud', 'f');
SELECT loyalty.merge_members(pg_temp.m('dan'), pg_temp.m('eve'), 'same person') AS moved;
SELECT available, debt FROM loyalty.balance(pg_temp.m('eve'));
SELECT loyalty.merge_members(pg_temp.m('eve'), pg_temp.m('fay'), 'same person') AS moved;
SELECT available, debt FROM loyalty.balance(pg_temp.m('fay'));
-- what died before a merge repays no debt, is not taken a second time, and may be reinstated after it
CREATE FUNCTION pg_temp.x(scheme text, who text) RETURNS bigint LANGUAGE sql AS $$ SELECT loyalty.enroll(program_id, who, '2020-01-01') FROM loyalty.program WHERE name = scheme $$;
SELECT loyalty.create_program('Merge dead', expiry => 'after', expiry_months => 0, expiry_days => 1, expiry_round => 'day', reinstate_days => 3650) > 0 AS made;
SELECT loyalty.add_rule(program_id, 'base', 'purchase', 'base', 'purchase.amount') > 0 AS made FROM loyalty.program WHERE name = 'Merge dead';
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.x('Merge dead', 'old'), '2026-03-05', 100, 'merge test', 'x1');
CALL loyalty.close_expired();
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.x('Merge dead', 'old'), '2026-03-01', 10, 'merge test', 'x2');
SELECT loyalty.adjust(pg_temp.x('Merge dead', 'new'), -30, 'fraud', 'f') AS seq;
SELECT loyalty.merge_members(pg_temp.x('Merge dead', 'old'), pg_temp.x('Merge dead', 'new'), 'same person') AS moved;
SELECT available, debt FROM loyalty.balance(pg_temp.x('Merge dead', 'new'));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('merge test', 'x1', 40), ('merge test', 'x2', NULL);
SELECT available, debt FROM loyalty.balance(pg_temp.x('Merge dead', 'new'));
SELECT loyalty.reinstate(pg_temp.x('Merge dead', 'new'), 'k', 'asked kindly') AS reinstated;
SELECT available, debt FROM loyalty.balance(pg_temp.x('Merge dead', 'new'));
SELECT m.external_id, e.kind, e.points, e.lots FROM loyalty.entry e JOIN loyalty.member m ON m.member_id = e.account_id JOIN loyalty.program p USING (program_id)
    WHERE p.name = 'Merge dead' AND e.kind <> 'reinstate' ORDER BY m.external_id DESC, e.seq;
-- nor do points live again that inactivity killed
SELECT loyalty.create_program('Merge slides', expiry => 'sliding', expiry_months => 6) > 0 AS made;
SELECT loyalty.add_rule(program_id, 'base', 'purchase', 'base', 'purchase.amount') > 0 AS made FROM loyalty.program WHERE name = 'Merge slides';
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.x('Merge slides', 'old'), '2024-03-05', 100, 'merge test', 'y1'), (pg_temp.x('Merge slides', 'new'), now(), 7, 'merge test', 'y2');
SELECT loyalty.merge_members(pg_temp.x('Merge slides', 'old'), pg_temp.x('Merge slides', 'new'), 'same person') AS moved;
SELECT available, debt FROM loyalty.balance(pg_temp.x('Merge slides', 'new'));
-- what cannot be merged
SELECT * FROM pg_temp.refused($$SELECT loyalty.merge_members(pg_temp.m('fay'), pg_temp.m('fay'), 'x')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.merge_members(pg_temp.m('ann'), pg_temp.m('fay'), 'x')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.merge_members(pg_temp.m('fay'), pg_temp.m('ann'), 'x')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.merge_members(pg_temp.m('fay'), loyalty.enroll(loyalty.create_program('Merge other'), 'x'), 'x')$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.merge_members(pg_temp.m('fay'), -1, 'x')$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.merge_members(pg_temp.m('fay'), pg_temp.m('cid'), '')$$);
SELECT count(*) FROM loyalty.hold(pg_temp.m('cid'), 10, 'h');
SELECT * FROM pg_temp.refused($$SELECT loyalty.merge_members(pg_temp.m('cid'), pg_temp.m('fay'), 'x')$$);
SELECT regexp_replace(description, 'member [0-9]+', 'member N') AS description, points FROM loyalty.statement(pg_temp.m('bob')) ORDER BY seq;
SELECT * FROM loyalty.check();
