-- points wait, live and die by policy; what died lately may live again; the books tie out
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
CREATE FUNCTION pg_temp.p(named text) RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = named $$;
CREATE FUNCTION pg_temp.m(named text, who text DEFAULT 'ann') RETURNS bigint LANGUAGE sql AS $$ SELECT loyalty.enroll(pg_temp.p(named), who, '2020-01-01') $$;
CREATE FUNCTION pg_temp.rule(named text) RETURNS integer LANGUAGE sql AS $$ SELECT loyalty.add_rule(pg_temp.p(named), 'base', 'purchase', 'base', 'purchase.amount') $$;
-- until a release
SELECT loyalty.create_program('Waits', pending => 'release', expiry_months => 1, expiry_round => 'day') > 0 AS made, pg_temp.rule('Waits') > 0 AS rule;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('Waits'), '2026-01-10', 100, 'expiry test', 'w1'), (pg_temp.m('Waits'), '2026-01-10', 50, 'expiry test', 'w2');
SELECT available, pending FROM loyalty.balance(pg_temp.m('Waits'));
SELECT loyalty.release_pending(purchase_id) AS released, loyalty.release_pending(purchase_id) AS again FROM loyalty.purchase WHERE source = 'expiry test' AND reference = 'w1';
SELECT available, pending, next_expiry_on - current_date BETWEEN 28 AND 31 AS lives_a_month FROM loyalty.balance(pg_temp.m('Waits'));
SELECT loyalty.release_pending(purchase_id, current_date + 7) AS released FROM loyalty.purchase WHERE source = 'expiry test' AND reference = 'w2';
SELECT b.available, b.pending, later.available AS in_a_week FROM loyalty.balance(pg_temp.m('Waits')) b, loyalty.balance(pg_temp.m('Waits'), current_date + 7) later;
SELECT * FROM pg_temp.refused(format('SELECT loyalty.release_pending(%s, current_date - 1)', (SELECT purchase_id FROM loyalty.purchase WHERE source = 'expiry test' AND reference = 'w2')));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('expiry test', 'w1'), ('expiry test', 'w2');
SELECT lots, tally FROM loyalty.account WHERE account_id = pg_temp.m('Waits');
-- sliding: every event moves the end of all points
SELECT loyalty.create_program('Slides', expiry => 'sliding', expiry_months => 6, expiry_round => 'day') > 0 AS made, pg_temp.rule('Slides') > 0 AS rule;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('Slides'), '2025-01-10', 100, 'expiry test', 's1'), (pg_temp.m('Slides'), '2025-07-09', 10, 'expiry test', 's2');
SELECT available FROM loyalty.balance(pg_temp.m('Slides'), '2025-07-08');
SELECT available FROM loyalty.balance(pg_temp.m('Slides'), '2026-01-08');
SELECT available FROM loyalty.balance(pg_temp.m('Slides'), '2026-01-09');
SELECT available FROM loyalty.balance(pg_temp.m('Slides'));
SELECT state, detail FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('Slides'), 1, 'r')$$);
-- an event after the end finds the points dead, and its own alive
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('Slides'), now() - interval '1 day', 7, 'expiry test', 's3');
SELECT kind, points FROM loyalty.entry WHERE account_id = pg_temp.m('Slides') ORDER BY seq;
SELECT available, next_expiry_on = ((now() - interval '1 day')::date + interval '6 months')::date AS in_half_a_year FROM loyalty.balance(pg_temp.m('Slides'));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('expiry test', 's1');
SELECT kind, points FROM loyalty.entry WHERE account_id = pg_temp.m('Slides') ORDER BY seq;
SELECT redeemed FROM loyalty.redeem(pg_temp.m('Slides'), 7, 'r');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('Slides', 'bob'), '2025-01-10', 100, 'expiry test', 's4');
CALL loyalty.close_expired();
SELECT kind, points FROM loyalty.entry WHERE account_id = pg_temp.m('Slides', 'bob') ORDER BY seq;
-- points that inactivity killed are reinstated as long after their end as others, whenever that was written down
SELECT loyalty.create_program('Slid', expiry => 'sliding', expiry_months => 6, expiry_round => 'day', restore_days => 10, reinstate_days => 60) > 0 AS made, pg_temp.rule('Slid') > 0 AS rule;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('Slid', 'long'), now() - interval '9 months', 100, 'expiry test', 's5'),
    (pg_temp.m('Slid', 'lately'), now() - interval '7 months', 100, 'expiry test', 's6');
SELECT who, r.* FROM unnest('{long,lately}'::text[]) who, pg_temp.refused(format('SELECT loyalty.reinstate(%s, ''k'', ''kind'')', pg_temp.m('Slid', who))) r;
SELECT who, b.available FROM unnest('{long,lately}'::text[]) who, loyalty.balance(pg_temp.m('Slid', who)) b;
-- a schedule and notices, for every lot date
SELECT loyalty.create_program('Dies', expiry_months => 1, expiry_round => 'day', restore_days => 10, reinstate_days => 60, point_value => 0.02) > 0 AS made, pg_temp.rule('Dies') > 0 AS rule;
SELECT loyalty.adjust(pg_temp.m('Dies'), 10 * d, 'gift', 'g' || d, expires_on => current_date + d) AS seq FROM unnest('{5,30,31,60}'::integer[]) d;
SELECT expires_on - current_date AS days, points FROM loyalty.expiry_schedule(pg_temp.m('Dies'));
SELECT expires_on - current_date AS days, points FROM loyalty.notices_due(pg_temp.p('Dies'), 30, as_of => current_date);
SELECT expires_on - current_date AS days, points FROM loyalty.notices_due(pg_temp.p('Dies'), 30, since => current_date - 60, as_of => current_date + 1);
-- what died within 60 days may live again; what died before may not
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('Dies', 'bob'), now() - interval '200 days', 100, 'expiry test', 'd1'), (pg_temp.m('Dies', 'bob'), now() - interval '50 days', 40, 'expiry test', 'd2');
SELECT available FROM loyalty.balance(pg_temp.m('Dies', 'bob'));
SELECT * FROM pg_temp.refused($$SELECT loyalty.reinstate(pg_temp.m('Dies', 'bob'), 'k', 'kind', 41)$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.reinstate(pg_temp.m('Dies', 'bob'), 'k', ' ')$$);
SELECT loyalty.reinstate(pg_temp.m('Dies', 'bob'), 'k', 'asked kindly', 15) AS points, loyalty.reinstate(pg_temp.m('Dies', 'bob'), 'k', 'asked kindly', 15) AS again, loyalty.reinstate(pg_temp.m('Dies', 'bob'), 'k2', 'asked again') AS rest;
SELECT state FROM pg_temp.refused($$SELECT loyalty.reinstate(pg_temp.m('Dies', 'bob'), 'k', 'asked kindly', 16)$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.reinstate(pg_temp.m('Dies', 'bob'), 'k3', 'asked once more')$$);
SELECT available, next_expiry_on - current_date AS days FROM loyalty.balance(pg_temp.m('Dies', 'bob'));
SELECT kind, points FROM loyalty.entry WHERE account_id = pg_temp.m('Dies', 'bob') ORDER BY seq;
-- a redemption of points that died meanwhile gives them back for a while
SELECT redeemed FROM loyalty.redeem(pg_temp.m('Dies'), 50, 'r');
SELECT held FROM loyalty.hold(pg_temp.m('Dies'), 300, 'h', ttl => '1 day');
SELECT available, held FROM loyalty.balance(pg_temp.m('Dies'), current_date + 45);
-- a tier has days of reinstatement and a limit of debt of its own
SELECT loyalty.create_program('By tier', expiry_months => 1, expiry_round => 'day', restore_days => 10, reinstate_days => 5, negative_limit => 0) > 0 AS made, pg_temp.rule('By tier') > 0 AS rule;
SELECT loyalty.add_tier(pg_temp.p('By tier'), 'Plain', 1) > 0, loyalty.add_tier(pg_temp.p('By tier'), 'Gold', 1000, negative_limit => 50, reinstate_days => 60) > 0;
SELECT state FROM pg_temp.refused(format('SELECT loyalty.add_tier(%s, ''Odd'', 2000, reinstate_days => -1)', pg_temp.p('By tier')));
SELECT loyalty.set_tier(pg_temp.m('By tier', 'gus'), 'Gold', '2099-01-01', 'match'), loyalty.set_tier(pg_temp.m('By tier', 'pia'), 'Plain', '2099-01-01', 'match');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) SELECT pg_temp.m('By tier', who), now() - make_interval(days => days), 60, 'expiry test', who || days FROM unnest('{gus,pia}'::text[]) who, unnest('{50,1}'::integer[]) days;
SELECT who, r.* FROM unnest('{gus,pia}'::text[]) who, pg_temp.refused(format('SELECT loyalty.reinstate(%s, ''k'', ''kind'', 10)', pg_temp.m('By tier', who))) r;
SELECT redeemed FROM unnest('{gus,pia}'::text[]) who, loyalty.redeem(pg_temp.m('By tier', who), 40, 'spent');
SELECT who, r.* FROM unnest('{gus,pia}'::text[]) who, pg_temp.refused(format('INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES (''expiry test'', ''%s1'')', who)) r;
SELECT who, b.available, b.debt FROM unnest('{gus,pia}'::text[]) who, loyalty.balance(pg_temp.m('By tier', who)) b;
-- what is owed, by the partner whose articles gave it
SELECT loyalty.create_program('Coalition', expiry => 'never', point_value => 0.01) > 0 AS made, pg_temp.rule('Coalition') > 0 AS rule;
INSERT INTO loyalty.product (program_id, sku, partner) VALUES (pg_temp.p('Coalition'), 'FUEL', 'Petrol Ltd'), (pg_temp.p('Coalition'), 'BOOK', 'Books plc'), (pg_temp.p('Coalition'), 'MILK', NULL);
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, source, reference) VALUES
    (pg_temp.m('Coalition'), now() - interval '1 hour', 100, loyalty.lines('[{"sku": "FUEL", "unit_price": 50}, {"sku": "BOOK", "unit_price": 30}, {"sku": "MILK", "unit_price": 13}, {"sku": "?", "unit_price": 7}]'), 'expiry test', 'c1'),
    (pg_temp.m('Coalition'), now() - interval '1 hour', 33, NULL, 'expiry test', 'c2');
SELECT partner, accounts, points, cost FROM loyalty.partner_liability WHERE program_id = pg_temp.p('Coalition') ORDER BY 1;
SELECT redeemed FROM loyalty.redeem(pg_temp.m('Coalition'), 12, 'k');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('expiry test', 'c1', loyalty.return_lines('[{"sku": "BOOK"}]'));
SELECT partner, points FROM loyalty.partner_liability WHERE program_id = pg_temp.p('Coalition') ORDER BY 1;
SELECT count(*) AS differ FROM (SELECT program_id, sum(points) FROM loyalty.partner_liability GROUP BY 1 EXCEPT SELECT program_id, sum(points) FROM loyalty.liability GROUP BY 1) x;
-- the views tie out to the ledger
SELECT p.name, (SELECT sum(f.points) FROM loyalty.points_flow f WHERE f.program_id = p.program_id) AS flow, (SELECT sum(l.points) FROM loyalty.liability l WHERE l.program_id = p.program_id) AS liability,
       (SELECT sum(b.given - b.returned - b.spent - b.expired + b.moved) FROM loyalty.breakage b WHERE b.program_id = p.program_id) AS breakage,
       (SELECT sum(loyalty.total(a.lots)) FROM loyalty.account a WHERE a.program_id = p.program_id) AS accounts FROM loyalty.program p WHERE p.name IN ('Waits', 'Slides', 'Dies') ORDER BY 1;
SELECT state, sum(points) AS points, sum(cost) AS cost FROM loyalty.liability WHERE program_id = pg_temp.p('Dies') GROUP BY 1 ORDER BY 1;
SELECT * FROM loyalty.check();
SELECT a, r.* FROM unnest('{NULL,-1,40000}'::text[]) a, pg_temp.refused(format('SELECT loyalty.notices_due(pg_temp.p(''Dies''), %s)', coalesce(a, 'NULL'))) r;
