-- households: several members earn into one account and spend from it; whoever joins brings everything, whoever leaves takes what it is given
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT m.member_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name ~ '^Houses' AND m.external_id = who $$;
CREATE FUNCTION pg_temp.named(message text) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce((SELECT string_agg(CASE WHEN w ~ '^[0-9]+$' THEN coalesce((SELECT m.external_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name ~ '^Houses' AND m.member_id = w::bigint), w) ELSE w END, '' ORDER BY n)
        FROM regexp_split_to_table(regexp_replace(message, '\m([0-9]+)\M(?! EUR|[.,][0-9])', '~\1~', 'g'), '~') WITH ORDINALITY AS x (w, n)), message)
$$;
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text, detail text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    message := pg_temp.named(message);
    detail := regexp_replace(detail, '(Transaction|"member":) [0-9]+', '\1 N', 'g');
    RETURN NEXT;
END
$$;
CREATE VIEW pg_temp.books AS
    SELECT pg_temp.named(e.account_id::text) AS account, e.seq, e.kind, e.points, pg_temp.named(e.detail ->> 'member') AS member FROM loyalty.entry e
    WHERE e.account_id IN (SELECT m.member_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name = 'Houses') ORDER BY (e.account_id > 4000000000000000), 1, 2;
SELECT loyalty.create_program('Houses', currency => 'EUR', point_value => 0.01, expiry => 'never', transfer_max => 1000, tier_window => 'lifetime') > 0;
SELECT loyalty.create_program('Houses elsewhere') > 0;
SELECT loyalty.add_rule(p.program_id, 'base', 'purchase', 'base', 'purchase.amount') > 0 FROM loyalty.program p WHERE p.name = 'Houses';
SELECT loyalty.add_rule(p.program_id, 'staff', 'purchase', 'multiply', '2', 'member.staff') > 0 FROM loyalty.program p WHERE p.name = 'Houses';
SELECT loyalty.add_rule(p.program_id, 'third', 'purchase', 'bonus', '1000', 'purchase.number = 3') > 0 FROM loyalty.program p WHERE p.name = 'Houses';
SELECT loyalty.add_tier(p.program_id, 'Gold', 300, 'spend') > 0 FROM loyalty.program p WHERE p.name = 'Houses';
SELECT count(loyalty.enroll(p.program_id, n, '2024-01-01', staff => n = 'bob')) FROM loyalty.program p, unnest('{ann,bob,cid,dan}'::text[]) n WHERE p.name = 'Houses';
SELECT loyalty.enroll(p.program_id, 'zoe', '2024-01-01') > 0 FROM loyalty.program p WHERE p.name = 'Houses elsewhere';
SELECT loyalty.create_household(p.program_id, 'home', '2024-01-01') = loyalty.create_household(p.program_id, 'home') AS found, loyalty.create_household(p.program_id, 'other', '2024-01-01') >= 4000000000000001 AS above FROM loyalty.program p WHERE p.name = 'Houses';
SELECT * FROM pg_temp.refused(format('SELECT loyalty.create_household(%s, ''ann'')', (SELECT p.program_id FROM loyalty.program p WHERE p.name = 'Houses')));

-- before: two members with purchases of their own
INSERT INTO loyalty.purchase (member_id, amount, occurred_at, reference, source) VALUES (pg_temp.m('ann'), 100, now() - interval '3 hours', 'a1', 'h'), (pg_temp.m('bob'), 100, now() - interval '2 hours', 'b1', 'h');
SELECT redeemed FROM loyalty.redeem(pg_temp.m('ann'), 30, 'before');
-- who may join what
SELECT * FROM pg_temp.refused($$SELECT loyalty.join_household(pg_temp.m('ann'), pg_temp.m('bob'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.join_household(pg_temp.m('home'), pg_temp.m('other'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.join_household(pg_temp.m('zoe'), pg_temp.m('home'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.join_household(-1, pg_temp.m('home'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.join_household(NULL, NULL)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.leave_household(pg_temp.m('ann'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.block_in_household(pg_temp.m('ann'))$$);
SELECT held FROM loyalty.hold(pg_temp.m('bob'), 10, 'on hold');
SELECT * FROM pg_temp.refused($$SELECT loyalty.join_household(pg_temp.m('bob'), pg_temp.m('home'))$$);
SELECT loyalty.release(pg_temp.m('bob'), 'on hold');
-- joining brings points, history and tier; joining again does nothing
SELECT loyalty.join_household(pg_temp.m('ann'), pg_temp.m('home'), 'family') AS ann, loyalty.join_household(pg_temp.m('bob'), pg_temp.m('home')) AS bob, loyalty.join_household(pg_temp.m('bob'), pg_temp.m('home')) AS again;
SELECT * FROM pg_temp.refused($$SELECT loyalty.join_household(pg_temp.m('bob'), pg_temp.m('other'))$$);
SELECT n, b.available FROM unnest('{ann,bob,home}'::text[]) n, loyalty.balance(pg_temp.m(n)) b;
-- purchases of either earn there: rules know the person, and the history of all; the tier is the household's
INSERT INTO loyalty.purchase (member_id, amount, reference, source) VALUES (pg_temp.m('ann'), 50, 'a2', 'h'), (pg_temp.m('bob'), 50, 'b2', 'h');
SELECT * FROM pg_temp.books;
SELECT n, loyalty.tier_progress(pg_temp.m(n)) ->> 'name' AS tier FROM unnest('{ann,bob,home}'::text[]) n;
SELECT q.points, q.tier FROM loyalty.quote(pg_temp.m('bob'), 10) q;
SELECT rule, fired, points FROM loyalty.explain((SELECT purchase_id FROM loyalty.purchase WHERE source = 'h' AND reference = 'b2'));
-- each spends from it; keys belong to the household; a key from before is used for ever
SELECT n, r.redeemed FROM (VALUES ('ann', 'k1'), ('bob', 'k2'), ('ann', 'k1')) AS x (n, k), loyalty.redeem(pg_temp.m(n), 10, k) r;
SELECT redeemed FROM loyalty.redeem(pg_temp.m('ann'), 30, 'before');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('bob'), 20, 'k1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.transfer(pg_temp.m('ann'), pg_temp.m('bob'), 5, 't1')$$);
SELECT loyalty.transfer(pg_temp.m('ann'), pg_temp.m('cid'), 5, 't1'), loyalty.transfer(pg_temp.m('cid'), pg_temp.m('bob'), 5, 't2'), loyalty.transfer(pg_temp.m('home'), pg_temp.m('cid'), 5, 't3');
SELECT restored FROM loyalty.undo(pg_temp.m('bob'), 'k1');
SELECT restored FROM loyalty.undo(pg_temp.m('ann'), 'before');
SELECT loyalty.adjust(pg_temp.m('ann'), 7, 'sorry', 'gift') = loyalty.adjust(pg_temp.m('ann'), 7, 'sorry', 'gift') AS once;
SELECT held FROM loyalty.hold(pg_temp.m('ann'), 10, 'h1');
SELECT redeemed FROM loyalty.capture(pg_temp.m('bob'), 'h1', 4);
-- a blocked member earns and does not spend
SELECT loyalty.block_in_household(pg_temp.m('bob'));
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('bob'), 1, 'blocked')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.hold(pg_temp.m('bob'), 1, 'blocked')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.transfer(pg_temp.m('bob'), pg_temp.m('cid'), 1, 'blocked')$$);
INSERT INTO loyalty.purchase (member_id, amount, reference, source) VALUES (pg_temp.m('bob'), 1, 'b3', 'h');
SELECT pg_temp.named(member_id::text) AS member, blocked, left_at IS NULL AS inside FROM loyalty.household WHERE household_id = pg_temp.m('home') ORDER BY member_id;
SELECT loyalty.block_in_household(pg_temp.m('bob'), false);
SELECT redeemed FROM loyalty.redeem(pg_temp.m('bob'), 1, 'blocked');
-- what was bought before or meanwhile is returned, changed and voided there
SELECT available AS before FROM loyalty.balance(pg_temp.m('home')) \gset
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, source, reference) VALUES ('h', 'a1', 'h', 'r1'), ('h', 'b3', 'h', 'r2');
UPDATE loyalty.purchase SET amount = 60 WHERE source = 'h' AND reference = 'a2';
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'h' AND reference = 'b2';
SELECT available - :before AS change FROM loyalty.balance(pg_temp.m('home'));
-- a purchase that turns out to be another member's
UPDATE loyalty.purchase SET member_id = pg_temp.m('bob') WHERE source = 'h' AND reference = 'a2';
UPDATE loyalty.purchase SET member_id = pg_temp.m('ann') WHERE source = 'h' AND reference = 'a2';
SELECT kind, points, description FROM (SELECT seq, kind, points, pg_temp.named(description) AS description FROM loyalty.statement(pg_temp.m('ann'))) s ORDER BY seq DESC LIMIT 30;
SELECT * FROM loyalty.check();
-- leaving with some points; the rest and the history stay
SELECT * FROM pg_temp.refused($$SELECT loyalty.leave_household(pg_temp.m('bob'), 1000000)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.leave_household(pg_temp.m('bob'), -1)$$);
SELECT loyalty.leave_household(pg_temp.m('bob'), 20, 'moved out');
SELECT n, b.available FROM unnest('{bob,home}'::text[]) n, loyalty.balance(pg_temp.m(n)) b;
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('bob'), 11, 'k2')$$);
SELECT redeemed FROM loyalty.redeem(pg_temp.m('bob'), 10, 'k2');
INSERT INTO loyalty.purchase (member_id, amount, reference, source) VALUES (pg_temp.m('bob'), 5, 'b4', 'h');
UPDATE loyalty.purchase SET amount = 90 WHERE source = 'h' AND reference = 'b1';
UPDATE loyalty.purchase SET status = 'completed' WHERE source = 'h' AND reference = 'b2';
SELECT n, b.available FROM unnest('{bob,home}'::text[]) n, loyalty.balance(pg_temp.m(n)) b;
-- what the household spent goes back to it, also by a member who left
SELECT restored FROM loyalty.undo(pg_temp.m('bob'), 'k2', reason => 'late');
SELECT n, b.available FROM unnest('{bob,home}'::text[]) n, loyalty.balance(pg_temp.m(n)) b;
-- and joining another
SELECT loyalty.join_household(pg_temp.m('bob'), pg_temp.m('other'));
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('bob'), 11, 'k2')$$);
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, source, reference) VALUES ('h', 'b1', 'h', 'r3'), ('h', 'b4', 'h', 'r4');
SELECT n, b.available, b.debt FROM unnest('{bob,home,other}'::text[]) n, loyalty.balance(pg_temp.m(n)) b;
-- members of households are not merged; closed members and frozen households do not spend
SELECT * FROM pg_temp.refused($$SELECT loyalty.merge_members(pg_temp.m('ann'), pg_temp.m('cid'), 'same')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.merge_members(pg_temp.m('cid'), pg_temp.m('ann'), 'same')$$);
SELECT loyalty.set_member_status(pg_temp.m('home'), 'frozen');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 1, 'frozen')$$);
SELECT loyalty.set_member_status(pg_temp.m('home'), 'active'), loyalty.close_member(pg_temp.m('ann'));
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('ann'), 1, 'closed')$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount) VALUES (pg_temp.m('ann'), 1)$$);
-- no more members than the programme allows at a time
SELECT loyalty.change_program(p.program_id, '{"household_max": 2}') FROM loyalty.program p WHERE p.name = 'Houses';
SELECT count(loyalty.enroll(p.program_id, n, '2024-01-01')) FROM loyalty.program p, unnest('{uma,vic,wim}'::text[]) n WHERE p.name = 'Houses';
SELECT loyalty.create_household(p.program_id, 'small') > 0 FROM loyalty.program p WHERE p.name = 'Houses';
SELECT r.* FROM unnest('{uma,vic,uma,wim}'::text[]) n, pg_temp.refused(format('SELECT loyalty.join_household(%s, %s)', pg_temp.m(n), pg_temp.m('small'))) r;
SELECT loyalty.leave_household(pg_temp.m('uma')), loyalty.join_household(pg_temp.m('wim'), pg_temp.m('small'));
-- the batch law: many rows of many members in one statement, in statements of 500 and row by row give the same books
SELECT count(loyalty.add_rule(loyalty.create_program('Houses by ' || x, expiry => 'never'), 'number', 'purchase', 'base', 'purchase.number * purchase.amount')) FROM unnest('{all,some,one}'::text[]) x;
SELECT count(loyalty.enroll(p.program_id, 'x' || g, '2024-01-01')) FROM loyalty.program p, generate_series(0, 39) g WHERE p.name ~ '^Houses by';
SELECT count(loyalty.create_household(p.program_id, 'house ' || g, '2024-01-01')) FROM loyalty.program p, generate_series(0, 9) g WHERE p.name ~ '^Houses by';
CREATE TEMP TABLE who AS SELECT p.name, m.external_id AS who, m.member_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name ~ '^Houses by';
SELECT sum(loyalty.join_household(w.member_id, h.member_id)) FROM generate_series(0, 29) g JOIN who w ON w.who = 'x' || g JOIN who h ON h.name = w.name AND h.who = 'house ' || (g * 7) % 10;
CREATE TEMP TABLE sale AS SELECT g, 'x' || (g * 13) % 40 AS who, 1 + g % 9 AS amount, timestamptz '2024-05-01' + make_interval(mins => g) AS at FROM generate_series(1, 6000) g;
INSERT INTO loyalty.purchase (member_id, amount, occurred_at) SELECT w.member_id, s.amount, s.at FROM sale s JOIN who w USING (who) WHERE w.name = 'Houses by all' ORDER BY md5(s.g::text);
DO $$
DECLARE
    n integer;
BEGIN
    FOR n IN 0 .. 11 LOOP
        INSERT INTO loyalty.purchase (member_id, amount, occurred_at)
            SELECT w.member_id, s.amount, s.at FROM sale s JOIN who w USING (who) WHERE w.name = 'Houses by some' AND s.g > n * 500 AND s.g <= n * 500 + 500 ORDER BY md5(s.g::text);
    END LOOP;
    FOR n IN 1 .. 6000 LOOP
        INSERT INTO loyalty.purchase (member_id, amount, occurred_at)
            SELECT w.member_id, s.amount, s.at FROM sale s JOIN who w USING (who) WHERE w.name = 'Houses by one' AND s.g = n;
    END LOOP;
END
$$;
SELECT count(*) AS accounts, count(*) FILTER (WHERE a.seq > 0) AS used, sum(loyalty.total(a.lots)) AS points,
       count(*) FILTER (WHERE NOT EXISTS (SELECT FROM who v JOIN loyalty.account b ON b.account_id = v.member_id
           WHERE v.name <> 'Houses by all' AND v.who = w.who AND (b.lots::text, b.tally::text) <> (a.lots::text, a.tally::text))) AS equal
    FROM who w JOIN loyalty.account a ON a.account_id = w.member_id WHERE w.name = 'Houses by all';
SELECT * FROM loyalty.check();
