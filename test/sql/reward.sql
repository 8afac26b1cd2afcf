-- rewards: a catalogue, claims on it, and what is left
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text, detail text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    message := regexp_replace(message, '(member|programme|claim|coupon|voucher) \d+', '\1 N', 'g');
    detail := regexp_replace(detail, '(Claim|claim|member|voucher|programme) \d+', '\1 N', 'g');
    detail := regexp_replace(detail, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00', 'WHEN', 'g');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p(what text DEFAULT 'Rewards') RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = what $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.today() RETURNS date LANGUAGE sql AS $$ SELECT loyalty.local_day(pg_temp.p(), now()) $$;
SELECT loyalty.create_program('Rewards', currency => 'EUR', time_zone => 'Europe/Berlin') > 0 AS made, loyalty.create_program('No rewards') > 0 AS another;
SELECT loyalty.add_tier(pg_temp.p(), 'silver', 1000) > 0 AS silver, loyalty.add_tier(pg_temp.p(), 'gold', 5000) > 0 AS gold;
SELECT count(loyalty.enroll(pg_temp.p(), name, staff => name = 'dan')) FROM unnest('{ann,bea,cid,dan,eve,fay}'::text[]) name;
SELECT count(loyalty.adjust(pg_temp.m(name), 1000, 'Start', 'start')) FROM unnest('{ann,bea,cid,dan,eve}'::text[]) name;
-- one of each kind; those that are worth nothing outside need no value
SELECT kind, loyalty.add_reward(pg_temp.p(), initcap(kind), kind, points, value, sku => sku, partner => partner, description => 'A ' || kind) > 0 AS added FROM (VALUES
    ('discount_amount', 500, 5.0, NULL, NULL), ('discount_percent', 300, 10, NULL, NULL), ('product', 100, NULL, 'MUG', NULL), ('service', 150, NULL, NULL, NULL),
    ('shipping', 50, NULL, NULL, NULL), ('event', 900, NULL, NULL, NULL), ('donation', 100, 1, NULL, NULL), ('partner', 700, 7, NULL, 'Cinema'),
    ('status', 0, NULL, NULL, NULL), ('badge', 10, NULL, NULL, NULL), ('access', 20, NULL, NULL, NULL)) v (kind, points, value, sku, partner);
SELECT name, points, value, currency, sku, partner, member_limit, limit_period, issues FROM loyalty.reward WHERE program_id = pg_temp.p() ORDER BY reward_id;
-- what is no reward
SELECT n, r.state, r.detail FROM (VALUES (1, $$'A', 'car', 1$$), (2, $$'', 'badge', 1$$), (3, $$NULL, 'badge', 1$$), (4, $$'A', 'badge', -1$$), (5, $$'A', 'discount_amount', 1$$), (6, $$'A', 'discount_percent', 1, 101$$),
    (7, $$'A', 'product', 1$$), (8, $$'A', 'service', 1, 'NaN'$$), (9, $$'A', 'service', 1, 0.00001$$), (10, $$'A', 'badge', 1, stock => -1$$), (11, $$'A', 'badge', 1, member_limit => 0$$), (12, $$'A', 'badge', 1, limit_period => 'hour'$$),
    (13, $$'A', 'badge', 1, valid_from => '2024-02-01', valid_until => '2024-02-01'$$), (14, $$'A', 'badge', 1, issues => 'voucher'$$), (15, $$'A', 'service', 1, valid_days => 3$$), (16, $$'A', 'service', 1, issues => 'coupon'$$),
    (17, $$'Badge', 'badge', 1$$), (18, $$'A', 'badge', 1, min_tier => 'platinum'$$), (19, $$'A', 'badge', 1, condition => 'member.spendd > 1'$$), (20, $$'A', 'badge', 1, condition => 'member.spend'$$),
    (21, $$'A', 'badge', 1, condition => 'now() > ''2024-01-01'''$$), (22, $$'A', 'badge', 1, condition => '(SELECT true)'$$), (23, $$'A', 'badge', 1, condition => 'purchase.amount > 1'$$), (24, $$'A', 'service', 1, issues => 'coupon', pool => 'no such'$$)) c (n, call),
    pg_temp.refused(format('SELECT loyalty.add_reward(pg_temp.p(), %s)', call)) r ORDER BY n;
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_reward(-1, 'A', 'badge', 1)$$);
-- a claim takes its points, and the same key and content again is the same claim
SELECT claim_id > 0 AS claimed, points, redemption_id > 0 AS paid, codes, voucher_ids, tokens FROM loyalty.claim(pg_temp.m('ann'), 'Product', 'a1');
SELECT count(DISTINCT claim_id) AS one, sum(points) FROM generate_series(1, 3), loyalty.claim(pg_temp.m('ann'), 'Product', 'a1');
SELECT available FROM loyalty.balance(pg_temp.m('ann'));
SELECT kind, points, description FROM loyalty.statement(pg_temp.m('ann'), max_rows => 1);
SELECT n, r.* FROM (VALUES (1, $$'Badge', 'a1'$$), (2, $$'Product', 'a1', 2$$), (3, $$'No such', 'a1'$$), (4, $$'No such', 'a2'$$), (5, $$'Product', NULL$$), (6, $$'Product', ''$$), (7, $$'Product', 'loyalty:x'$$), (8, $$'Product', repeat('k', 501)$$), (9, $$'Product', 'a2', 0$$), (10, $$'Product', 'a2', 1001$$),
    (11, $$'Product', 'a2', NULL$$), (12, $$'Event', 'a2', 2$$), (13, $$NULL, 'a2'$$), (14, $$'Product', 'a2', card => 'no such'$$)) c (n, call), pg_temp.refused(format('SELECT loyalty.claim(pg_temp.m(%L), %s)', 'ann', call)) r ORDER BY n;
SELECT * FROM pg_temp.refused($$SELECT loyalty.claim(-1, 'Product', 'x')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.claim(NULL, 'Product', 'x')$$);
-- several at once; free ones; the programme's minimum is of money, not of rewards
UPDATE loyalty.program SET redeem_min = 500 WHERE program_id = pg_temp.p();
SELECT points, redemption_id > 0 AS paid FROM loyalty.claim(pg_temp.m('ann'), 'Badge', 'a3', 3);
SELECT points, redemption_id IS NULL AS free FROM loyalty.claim(pg_temp.m('ann'), 'Status', 'a4');
-- frozen, closed, in debt
SELECT loyalty.set_member_status(pg_temp.m('eve'), 'frozen');
SELECT * FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('eve'), 'Status', 'e1')$$);
SELECT loyalty.set_member_status(pg_temp.m('eve'), 'active');
SELECT points FROM loyalty.claim(pg_temp.m('eve'), 'Shipping', 'e1');
SELECT loyalty.close_member(pg_temp.m('eve'));
SELECT * FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('eve'), 'Status', 'e2')$$);
SELECT points AS again_although_closed FROM loyalty.claim(pg_temp.m('eve'), 'Shipping', 'e1');
SELECT loyalty.adjust(pg_temp.m('fay'), -5, 'Owes') > 0 AS owes;
SELECT * FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('fay'), 'Badge', 'f1')$$);
SELECT points FROM loyalty.claim(pg_temp.m('fay'), 'Status', 'f1');
-- tier and condition
SELECT count(loyalty.add_reward(pg_temp.p(), name, 'badge', 1, min_tier => tier, condition => condition, valid_from => from_at, valid_until => until_at)) FROM (VALUES
    ('for gold', 'gold', NULL, '-infinity'::timestamptz, 'infinity'::timestamptz), ('for staff', NULL, 'member.staff', '-infinity', 'infinity'), ('for spenders', NULL, 'member.spend >= 100', '-infinity', 'infinity'),
    ('for nobody', NULL, '1 / length(member.external_id || '''') = 5 AND 1 / (member.tier_rank * 0) = 1', '-infinity', 'infinity'), ('fails', NULL, '1 / (member.tier_rank * 0) = 1', '-infinity', 'infinity'),
    ('too early', NULL, NULL, '2999-01-01', 'infinity'), ('too late', NULL, NULL, '-infinity', '2001-01-01')) v (name, tier, condition, from_at, until_at);
SELECT name, r.* FROM unnest('{for gold,for staff,for spenders,for nobody,fails,too early,too late}'::text[]) name, pg_temp.refused(format('SELECT loyalty.claim(pg_temp.m(%L), %L, %L)', 'bea', name, name)) r;
SELECT loyalty.set_tier(pg_temp.m('bea'), 'gold', pg_temp.today() + 30, 'Test');
INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (pg_temp.m('bea'), 120, 'reward-1');
SELECT name, points FROM unnest('{for gold,for spenders}'::text[]) name, loyalty.claim(pg_temp.m('bea'), name, name);
SELECT points FROM loyalty.claim(pg_temp.m('dan'), 'for staff', 'd1');
-- the limit of a member counts by the calendar of the programme
SELECT count(loyalty.add_reward(pg_temp.p(), 'limited ' || period, 'badge', 1, member_limit => 2, limit_period => period)) FROM unnest('{day,week,month,year,ever}'::text[]) period;
SELECT period, r.state, r.detail FROM unnest('{day,week,month,year,ever}'::text[]) period, LATERAL (SELECT count(loyalty.claim(pg_temp.m('cid'), 'limited ' || period, 'c ' || period || i)) FROM generate_series(1, 2) i) x,
    pg_temp.refused(format('SELECT loyalty.claim(pg_temp.m(%L), %L, %L)', 'cid', 'limited ' || period, 'c ' || period || '3')) r WHERE x.count = 2;
SELECT r.state, r.detail FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('dan'), 'limited ever', 'd2', 3)$$) r;
SELECT points FROM loyalty.claim(pg_temp.m('dan'), 'limited ever', 'd2', 2);
SELECT period, loyalty.limit_period_on(r, '2024-12-31 23:30+00') FROM unnest('{day,week,month,year,ever}'::text[]) period, loyalty.reward r WHERE r.program_id = pg_temp.p() AND r.name = 'limited ' || period;
-- stock is never below zero
SELECT loyalty.add_reward(pg_temp.p(), 'few', 'badge', 1, stock => 3) > 0 AS few, loyalty.add_reward(pg_temp.p(), 'none', 'badge', 1, stock => 0) > 0 AS none, loyalty.add_reward(pg_temp.p(), 'many', 'badge', 1, stock => 1000) > 0 AS many;
SELECT name, count(*) AS shares, sum(remaining), max(remaining) - min(remaining) <= 1 AS even FROM loyalty.reward JOIN loyalty.stock_share USING (stock_id) WHERE program_id = pg_temp.p() GROUP BY name ORDER BY name;
SELECT r.state, r.detail FROM unnest('{4,2,2,1,1}'::int[]) WITH ORDINALITY u (quantity, n), pg_temp.refused(format('SELECT loyalty.claim(pg_temp.m(%L), %L, %L, %s)', 'cid', 'few', 'few ' || n, quantity)) r;
SELECT r.state, r.detail FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('cid'), 'none', 'n1')$$) r;
SELECT points FROM loyalty.claim(pg_temp.m('cid'), 'many', 'many 1', 500);
SELECT loyalty.restock_reward(pg_temp.p(), 'none', 2) AS none, loyalty.restock_reward(pg_temp.p(), 'few', 0) AS few, loyalty.restock_reward(pg_temp.p(), 'many', -400) AS many;
SELECT r.state, r.detail FROM (VALUES ($$'many', -101$$), ($$'many', NULL$$), ($$'Badge', 1$$), ($$'no such', 1$$), ($$'many', 9000000000000000000$$)) c (call), pg_temp.refused(format('SELECT loyalty.restock_reward(pg_temp.p(), %s)', call)) r;
SELECT points FROM loyalty.claim(pg_temp.m('cid'), 'none', 'n1');
SELECT name, stock, loyalty.stock_left(stock_id) AS left FROM loyalty.reward WHERE program_id = pg_temp.p() AND stock IS NOT NULL ORDER BY name;
-- undone once: points, stock and limit come back
SELECT available FROM loyalty.balance(pg_temp.m('cid'));
SELECT restored, claim_id > 0 AS claim FROM loyalty.undo_claim(pg_temp.m('cid'), 'many 1', 'Changed my mind');
SELECT restored FROM loyalty.undo_claim(pg_temp.m('cid'), 'many 1', 'Changed my mind');
SELECT restored FROM loyalty.undo_claim(pg_temp.m('cid'), 'c ever1', 'Not wanted');
SELECT points AS the_limit_came_back FROM loyalty.claim(pg_temp.m('cid'), 'limited ever', 'c ever4');
SELECT points AS a_key_stays_used FROM loyalty.claim(pg_temp.m('cid'), 'limited ever', 'c ever1');
SELECT available FROM loyalty.balance(pg_temp.m('cid'));
SELECT kind, points, description FROM loyalty.statement(pg_temp.m('cid'), max_rows => 3);
SELECT name, stock, loyalty.stock_left(stock_id) AS left FROM loyalty.reward WHERE program_id = pg_temp.p() AND name = 'many';
SELECT r.* FROM (VALUES ($$'no such', 'Why'$$), ($$'n1', ''$$), ($$'n1', NULL$$), ($$NULL, 'Why'$$)) c (call), pg_temp.refused(format('SELECT loyalty.undo_claim(pg_temp.m(%L), %s)', 'cid', call)) r;
SELECT * FROM pg_temp.refused($$SELECT loyalty.undo_claim(-1, 'n1', 'Why')$$);
-- the redemption of a claim is not undone behind its back
SELECT r.* FROM loyalty.claim c, pg_temp.refused(format('SELECT loyalty.undo(pg_temp.m(%L), %L)', 'cid', 'loyalty:claim ' || c.claim_id)) r WHERE c.member_id = pg_temp.m('cid') AND c.key = 'n1';
INSERT INTO loyalty.purchase (member_id, amount, paid_with_points, redemption_id, reference) SELECT member_id, 10, 1, redemption_id, 'reward-2' FROM loyalty.claim WHERE member_id = pg_temp.m('cid') AND key = 'n1';
INSERT INTO loyalty.purchase_return (purchase_reference) VALUES ('reward-2');
SELECT points_money, points_restored FROM loyalty.returned d JOIN loyalty.purchase p USING (purchase_id) WHERE p.reference = 'reward-2';
-- what is there for whom, and why not
SELECT reward, points, claimable, obstacle, why, stock_left, limit_left FROM loyalty.rewards_for(pg_temp.m('cid'));
SELECT obstacle, count(*) FROM loyalty.rewards_for(pg_temp.m('eve')) GROUP BY 1;
SELECT obstacle, count(*) FROM loyalty.rewards_for(pg_temp.m('fay')) WHERE points > 0 AND obstacle <> 'LY705' GROUP BY 1 ORDER BY 1;
SELECT * FROM pg_temp.refused($$SELECT loyalty.rewards_for(-1)$$);
-- status, badges and access are held; some for a time
SELECT loyalty.add_reward(pg_temp.p(), 'Lounge', 'access', 5, valid_days => 30) > 0 AS lounge;
SELECT points FROM loyalty.claim(pg_temp.m('ann'), 'Lounge', 'a5');
SELECT kind, reward, description, quantity, held_since = now() AS now, held_until - pg_temp.today() AS days FROM loyalty.distinctions(pg_temp.m('ann'));
SELECT restored FROM loyalty.undo_claim(pg_temp.m('ann'), 'a5', 'Left');
SELECT kind, reward FROM loyalty.distinctions(pg_temp.m('ann'));
SELECT jsonb_path_query_array(loyalty.cabinet(pg_temp.m('ann')), '$.distinctions[*].reward') AS held, jsonb_path_query_array(loyalty.cabinet(pg_temp.m('ann')), '$.rewards[*] ? (@.points > 400).reward') AS rewards;
-- retired: no more claims, the name is free; what was claimed stays
SELECT loyalty.retire_reward(pg_temp.p(), 'Product', 'Out of fashion');
SELECT r.* FROM (VALUES ('ann', $$'Product', 'a6'$$), ('ann', $$'Product', 'a1'$$)) c (who, call), pg_temp.refused(format('SELECT loyalty.claim(pg_temp.m(%L), %s)', who, call)) r;
SELECT r.state FROM pg_temp.refused($$SELECT loyalty.retire_reward(pg_temp.p(), 'Product')$$) r;
SELECT loyalty.add_reward(pg_temp.p(), 'Product', 'product', 90, sku => 'CUP') > 0 AS another;
SELECT points FROM loyalty.claim(pg_temp.m('ann'), 'Product', 'a6');
-- nothing is edited, nothing is deleted
SELECT r.state, r.message FROM unnest(ARRAY['UPDATE loyalty.reward SET points = 0', 'DELETE FROM loyalty.reward', 'TRUNCATE loyalty.reward', 'UPDATE loyalty.claim SET points = 0', 'UPDATE loyalty.claim SET undone_at = now(), undone_by = ''me'', reason = ''x''',
    'DELETE FROM loyalty.claim', 'TRUNCATE loyalty.claim', 'UPDATE loyalty.reward SET retired_at = NULL']) s, pg_temp.refused(s) r;
-- who was merged keeps what was claimed
SELECT loyalty.merge_members(pg_temp.m('ann'), pg_temp.m('dan'), 'Same person') > 0 AS merged;
SELECT kind, reward FROM loyalty.distinctions(pg_temp.m('dan'));
SELECT r.state FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('ann'), 'Badge', 'a7')$$) r;
SELECT (loyalty.balance(pg_temp.m('dan'))).available AS before \gset
SELECT restored FROM loyalty.undo_claim(pg_temp.m('ann'), 'a6', 'Returned it');
SELECT available - :before AS to_whom_took_over FROM loyalty.balance(pg_temp.m('dan'));
SELECT * FROM loyalty.check();
