-- redeem, hold, capture, release, undo, transfer, write-off: soonest expiry first, once per key
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
    message := regexp_replace(message, 'members? [0-9]+( and [0-9]+)?', 'member N', 'g');
    RETURN NEXT;
END
$$;
-- an account's living lots as {days of life: points}
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Redeem' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.lots(who text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_object_agg(coalesce((nullif(u.expires_on, 'infinity') - current_date)::text, 'never'), u.points) FROM loyalty.account a, loyalty.unnest(a.lots) u WHERE a.account_id = pg_temp.m(who) $$;
CREATE FUNCTION pg_temp.taken(who text, key text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_object_agg(u.expires_on - current_date, u.points) FROM loyalty.entry e, loyalty.unnest(e.lots) u WHERE e.account_id = pg_temp.m(who) AND e.key = taken.key $$;
SELECT loyalty.create_program('Redeem', currency => 'EUR', point_value => 0.01, expiry => 'never') > 0 AS made;
SELECT count(loyalty.enroll(pg_temp.p(), who, '2024-01-01')) FROM unnest('{ann,bob,cid,dan,eve}'::text[]) who;
SELECT loyalty.adjust(pg_temp.m('ann'), 300, 'gift', 'g' || d, expires_on => current_date + d) FROM unnest('{30,10,20}'::integer[]) d;
SELECT redeemed, money, currency FROM loyalty.redeem(pg_temp.m('ann'), 450, 'r1', reference => 'order 1');
SELECT pg_temp.taken('ann', 'r1') AS soonest_expiry_first, pg_temp.lots('ann') AS lots;
-- the same key: the same result, once
SELECT redeemed, money FROM loyalty.redeem(pg_temp.m('ann'), 450, 'r1', reference => 'order 1');
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 451, 'r1', reference => 'order 1')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 450, 'r1')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 450, 'g10')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 451, 'r2')$$);
-- in parts: what there is, or what the order allows
SELECT redeemed, money FROM loyalty.redeem(pg_temp.m('ann'), 10000, 'r3', partial => true, order_amount => 1.239);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 200, 'r4', order_amount => 1.99)$$);
SELECT redeemed, money FROM loyalty.redeem(pg_temp.m('ann'), 200, 'r4', order_amount => 2);
-- undo gives the very lots back, a part the last ones first
SELECT restored, money FROM loyalty.undo(pg_temp.m('ann'), 'r1', 100, 'u1');
SELECT pg_temp.taken('ann', 'u1') AS last_taken_first;
SELECT restored, money FROM loyalty.undo(pg_temp.m('ann'), 'r1', 100, 'u1');
SELECT * FROM pg_temp.refused($$SELECT loyalty.undo(pg_temp.m('ann'), 'r1', 351, 'u2')$$);
-- a retry says what was given back since
SELECT redeemed, money, undone FROM loyalty.redeem(pg_temp.m('ann'), 450, 'r1', reference => 'order 1');
SELECT restored, money FROM loyalty.undo(pg_temp.m('ann'), 'r1');
SELECT restored, money FROM loyalty.undo(pg_temp.m('ann'), 'r1');
SELECT * FROM pg_temp.refused($$SELECT loyalty.undo(pg_temp.m('ann'), 'r1', undo_key => 'u3')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.undo(pg_temp.m('ann'), 'g10')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.undo(pg_temp.m('ann'), 'r3', 1)$$);
SELECT coalesce(loyalty.sum(e.lots), '{}') AS nothing_left_of_r1 FROM loyalty.entry e JOIN loyalty.redemption r ON e.source_id = r.redemption_id WHERE r.member_id = pg_temp.m('ann') AND r.key = 'r1';
-- a hold sets points aside
SELECT held, money, held_until > now() AS lasts FROM loyalty.hold(pg_temp.m('ann'), 500, 'h1', ttl => '1 hour');
SELECT held, money FROM loyalty.hold(pg_temp.m('ann'), 500, 'h1', ttl => '1 hour');
SELECT available, held FROM loyalty.balance(pg_temp.m('ann'));
SELECT available, held FROM loyalty.balance(pg_temp.m('ann'), current_date + 9);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.hold(pg_temp.m('ann'), 501, 'h1')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 500, 'h1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 200, 'r5')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.capture(pg_temp.m('ann'), 'h1', 501)$$);
SELECT redeemed, money FROM loyalty.capture(pg_temp.m('ann'), 'h1', 333);
SELECT redeemed, money FROM loyalty.capture(pg_temp.m('ann'), 'h1', 333);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.capture(pg_temp.m('ann'), 'h1', 334)$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.release(pg_temp.m('ann'), 'h1')$$);
SELECT held, money FROM loyalty.hold(pg_temp.m('ann'), 500, 'h1', ttl => '1 hour');
SELECT available, held FROM loyalty.balance(pg_temp.m('ann'));
SELECT held FROM loyalty.hold(pg_temp.m('ann'), 50, 'h2');
SELECT loyalty.release(pg_temp.m('ann'), 'h2') AS released, loyalty.release(pg_temp.m('ann'), 'h2') AS again;
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.capture(pg_temp.m('ann'), 'h2')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.capture(pg_temp.m('ann'), 'none')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.hold(pg_temp.m('ann'), 1, 'h3', ttl => '-1 second')$$);
SELECT restored, money FROM loyalty.undo(pg_temp.m('ann'), 'h1', 33, 'u4');
-- a hold ends by itself, with no job
SELECT held FROM loyalty.hold(pg_temp.m('ann'), 100, 'h4', ttl => '1 millisecond');
SELECT pg_sleep(0.01);
SELECT available, held FROM loyalty.balance(pg_temp.m('ann'));
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.capture(pg_temp.m('ann'), 'h4')$$);
SELECT redeemed FROM loyalty.redeem(pg_temp.m('ann'), 200, 'r6');
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.capture(pg_temp.m('ann'), 'h4')$$);
SELECT kind, points, detail ->> 'lapsed' AS lapsed FROM loyalty.entry WHERE account_id = pg_temp.m('ann') AND key = 'h4';
-- a transfer keeps the days
SELECT loyalty.adjust(pg_temp.m('bob'), 50, 'gift', 'g', expires_on => current_date + 5), loyalty.adjust(pg_temp.m('bob'), 50, 'gift', 'g2');
SELECT loyalty.transfer(pg_temp.m('bob'), pg_temp.m('cid'), 70, 't1') AS given, loyalty.transfer(pg_temp.m('bob'), pg_temp.m('cid'), 70, 't1') AS again;
SELECT pg_temp.lots('bob') AS bob, pg_temp.lots('cid') AS cid;
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.transfer(pg_temp.m('bob'), pg_temp.m('bob'), 1, 't2')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.transfer(pg_temp.m('bob'), pg_temp.m('dan'), 70, 't1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.transfer(pg_temp.m('bob'), pg_temp.m('cid'), 31, 't3')$$);
-- a debt: no spending, repaid first, or forgiven
SELECT loyalty.adjust(pg_temp.m('dan'), -40, 'fraud', 'f');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('dan'), 1, 'r')$$);
SELECT loyalty.transfer(pg_temp.m('cid'), pg_temp.m('dan'), 30, 't4');
SELECT debt, available FROM loyalty.balance(pg_temp.m('dan'));
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.write_off(pg_temp.m('dan'), ' ', 'w')$$);
SELECT loyalty.write_off(pg_temp.m('dan'), 'goodwill', 'w1', 4) AS part, loyalty.write_off(pg_temp.m('dan'), 'goodwill', 'w2') AS rest, loyalty.write_off(pg_temp.m('dan'), 'goodwill', 'w2') AS again;
SELECT * FROM pg_temp.refused($$SELECT loyalty.write_off(pg_temp.m('dan'), 'goodwill', 'w3')$$);
-- frozen and closed members do not spend
SELECT loyalty.set_member_status(pg_temp.m('bob'), 'frozen');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('bob'), 1, 'r')$$);
SELECT loyalty.set_member_status(pg_temp.m('bob'), 'closed');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('bob'), 1, 'r')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.transfer(pg_temp.m('cid'), pg_temp.m('bob'), 1, 't5')$$);
-- bad input
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(-1, 1, 'r')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(NULL, 1, 'r')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('cid'), 0, 'r')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('cid'), -5, 'r')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('cid'), NULL, 'r')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('cid'), 1, '')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('cid'), 1, NULL)$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('cid'), 1, 'loyalty:return 1')$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('cid'), 1, 'r', order_amount => 'NaN')$$);
-- a programme's own limits
SELECT loyalty.create_program('Redeem limits', currency => 'JPY', point_value => 0.4, redeem_min => 10, redeem_step => 5, redeem_max => 60, redeem_max_share => 0.5, redeem_line_max => 20, transfer_max => 0) > 0 AS made;
CREATE FUNCTION pg_temp.l() RETURNS bigint LANGUAGE sql AS $$ SELECT loyalty.enroll((SELECT program_id FROM loyalty.program WHERE name = 'Redeem limits'), 'lee', '2024-01-01') $$;
SELECT loyalty.adjust(pg_temp.l(), 100, 'gift', 'g');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.l(), 5, 'r')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.l(), 12, 'r')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.l(), 65, 'r')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.l(), 60, 'r', order_amount => 40)$$);
SELECT redeemed, money FROM loyalty.redeem(pg_temp.l(), 60, 'r', partial => true, order_amount => 31);
SELECT redeemed, money FROM loyalty.redeem(pg_temp.l(), 60, 'r2', partial => true, lines => loyalty.lines('[{"sku": "A", "unit_price": 30}, {"sku": "B", "unit_price": 3}]'));
SELECT redeemed, money FROM loyalty.redeem(pg_temp.l(), 60, 'r3', partial => true);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.l(), 60, 'r4', partial => true)$$);
SELECT state, message FROM pg_temp.refused($$SELECT loyalty.transfer(pg_temp.l(), pg_temp.m('cid'), 10, 't')$$);
SELECT kind, points, regexp_replace(description, 'member [0-9]+', 'member N') AS description FROM loyalty.statement(pg_temp.m('dan')) ORDER BY seq;
SELECT key, was_held, points, undone, spent, money, money_undone, reference FROM loyalty.redemption WHERE member_id = pg_temp.m('ann') ORDER BY redemption_id;
SELECT * FROM loyalty.check();
