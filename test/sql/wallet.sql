-- wallets: more kinds of points in one programme, each with its rules, expiry and tiers; one purchase feeds them all
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    message := regexp_replace(message, '(members?|programme|transaction) [0-9]+( and [0-9]+)?', '\1 N', 'g');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Air' $$;
CREATE FUNCTION pg_temp.w(which text) RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE wallet_of = pg_temp.p() AND wallet = which $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT m.member_id FROM loyalty.member m WHERE m.program_id = pg_temp.p() AND m.external_id = who $$;
CREATE VIEW pg_temp.books AS
    SELECT m.external_id AS who, coalesce(w.wallet, 'miles') AS wallet, e.seq, e.kind, e.points, loyalty.spend(e.tally) AS spend
    FROM loyalty.entry e JOIN loyalty.account a USING (account_id) JOIN loyalty.program w ON w.program_id = a.program_id
        JOIN loyalty.member m ON m.member_id = CASE WHEN e.account_id < 5000000000000000 THEN e.account_id ELSE (e.account_id - 5000000000000000) % 100000000000 END
    WHERE pg_temp.p() IN (w.program_id, w.wallet_of);
SELECT loyalty.create_program('Air', currency => 'EUR', point_value => 0.01) > 0;
SELECT loyalty.add_wallet(pg_temp.p(), 'Status', 'status credits', policies => '{"expiry": "after", "expiry_months": 24, "negative": "allow"}') > 0 AS status;
SELECT loyalty.add_wallet(pg_temp.p(), 'Stamps', points_name => 'stamps', policies => '{"expiry": "never"}') > 0 AS stamps;
SELECT r.* FROM unnest(ARRAY[format('loyalty.add_wallet(%s, ''Status'')', pg_temp.p()), format('loyalty.add_wallet(%s, ''Deeper'')', pg_temp.w('Status')), 'loyalty.add_wallet(-1, ''x'')', format('loyalty.add_wallet(%s, NULL)', pg_temp.p()),
    format('loyalty.add_wallet(%s, ''Held'', policies => ''{"on_rule_error": "hold"}'')', pg_temp.p()), format('loyalty.add_wallet(%s, ''Odd'', policies => ''{"wallet_of": 1}'')', pg_temp.p()), format('loyalty.enroll(%s, ''nobody'')', pg_temp.w('Status'))]) s, pg_temp.refused('SELECT ' || s) r;
SELECT loyalty.add_rule(pg_temp.p(), 'miles', 'purchase', 'base', 'purchase.amount * 5') > 0;
SELECT loyalty.add_rule(pg_temp.w('Status'), 'credits', 'purchase', 'base', '10', 'purchase.channel = ''flight''') > 0;
SELECT loyalty.add_rule(pg_temp.w('Status'), 'third', 'purchase', 'bonus', '100', 'purchase.number = 3') > 0;
SELECT loyalty.add_rule(pg_temp.w('Stamps'), 'coffee', 'line', 'base', 'line.quantity', 'product.category = ''coffee''') > 0;
SELECT loyalty.add_rule(pg_temp.w('Stamps'), 'review', 'activity', 'base', '1', 'activity.kind = ''review''') > 0;
SELECT loyalty.add_tier(pg_temp.w('Status'), 'Silver', 25) > 0;
INSERT INTO loyalty.product (program_id, sku, category) VALUES (pg_temp.p(), 'ESP', 'coffee'), (pg_temp.p(), 'BUN', 'bread');
SELECT count(loyalty.enroll(pg_temp.p(), n, '2024-01-01')) FROM unnest('{ann,bob,cid,dan}'::text[]) n;
-- a wallet that was never used is empty
SELECT b.available, b.next_expiry_on FROM loyalty.balance(loyalty.wallet(pg_temp.m('ann'), 'Stamps')) b;
SELECT count(*) FROM loyalty.statement(loyalty.wallet(pg_temp.m('ann'), 'Stamps'));
SELECT * FROM pg_temp.refused($$SELECT loyalty.wallet(pg_temp.m('ann'), 'Nothing')$$);
SELECT state FROM pg_temp.refused(format($$SELECT loyalty.add_reward(%s, 'mug', 'product', 5, sku => 'MUG')$$, pg_temp.w('Status')));
SELECT * FROM pg_temp.refused($$SELECT loyalty.balance(5000000000000000 + 39999 * 100000000000 + 1)$$);
-- one statement feeds all; rules of a wallet know the orders before, its own tier and the articles of the programme
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, channel, lines, source, reference) VALUES
    (pg_temp.m('ann'), now() - interval '3 hours', 10, 'flight', NULL, 'air', 'a1'),
    (pg_temp.m('bob'), now() - interval '3 hours', 6, NULL, loyalty.lines('[{"sku": "ESP", "quantity": 2, "unit_price": 2}, {"sku": "BUN", "unit_price": 2}]'), 'air', 'b1'),
    (pg_temp.m('ann'), now() - interval '2 hours', 10, 'flight', NULL, 'air', 'a2'),
    (pg_temp.m('ann'), now() - interval '1 hour', 10, 'flight', loyalty.lines('[{"sku": "ESP", "quantity": 1, "unit_price": 10}]'), 'air', 'a3');
INSERT INTO loyalty.activity (member_id, kind, source, reference) VALUES (pg_temp.m('bob'), 'review', 'air', 'v1');
SELECT * FROM pg_temp.books ORDER BY 1, 2, 3;
SELECT m.external_id, w.wallet, w.tier, w.available, w.lifetime_points FROM loyalty.wallet_balance w JOIN loyalty.member m USING (member_id) WHERE w.program_id = pg_temp.p() ORDER BY 1, 2;
SELECT x ->> 'name' AS wallet, x ->> 'available' AS available, x ->> 'tier' AS tier FROM jsonb_array_elements(loyalty.cabinet(pg_temp.m('ann')) -> 'wallets') x;
SELECT q.points FROM loyalty.quote(pg_temp.m('ann'), 10, channel => 'flight') q;
SELECT q.points FROM loyalty.quote(loyalty.wallet(pg_temp.m('ann'), 'Status'), 10, channel => 'flight') q;
SELECT q.points FROM loyalty.quote(loyalty.wallet(pg_temp.m('dan'), 'Status'), 10, channel => 'flight') q;
-- every operation takes a wallet's account
SELECT redeemed FROM loyalty.redeem(loyalty.wallet(pg_temp.m('bob'), 'Stamps'), 2, 'free coffee');
SELECT redeemed FROM loyalty.redeem(loyalty.wallet(pg_temp.m('bob'), 'Stamps'), 2, 'free coffee');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(loyalty.wallet(pg_temp.m('bob'), 'Stamps'), 2, 'more coffee')$$);
SELECT restored FROM loyalty.undo(loyalty.wallet(pg_temp.m('bob'), 'Stamps'), 'free coffee');
SELECT loyalty.adjust(loyalty.wallet(pg_temp.m('dan'), 'Stamps'), 3, 'welcome', 'w') = loyalty.adjust(loyalty.wallet(pg_temp.m('dan'), 'Stamps'), 3, 'welcome', 'w') AS once;
SELECT loyalty.transfer(loyalty.wallet(pg_temp.m('dan'), 'Stamps'), loyalty.wallet(pg_temp.m('cid'), 'Stamps'), 1, 't');
SELECT * FROM pg_temp.refused($$SELECT loyalty.transfer(loyalty.wallet(pg_temp.m('dan'), 'Stamps'), pg_temp.m('cid'), 1, 't2')$$);
SELECT loyalty.set_tier(loyalty.wallet(pg_temp.m('dan'), 'Status'), 'Silver', '2099-01-01', 'match');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(loyalty.wallet(-5, 'Stamps'), 1, 'x')$$);
-- a change, a return and a void concern them all
UPDATE loyalty.purchase SET channel = NULL WHERE source = 'air' AND reference = 'a2';
UPDATE loyalty.purchase SET channel = 'flight' WHERE source = 'air' AND reference = 'b1';
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines, source, reference) VALUES ('air', 'b1', ARRAY[ROW(NULL, 'ESP', 1, NULL)::loyalty.return_line], 'air', 'r1');
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'air' AND reference = 'a3';
SELECT * FROM pg_temp.books WHERE kind NOT IN ('earn', 'redeem', 'undo', 'adjust', 'transfer') ORDER BY 1, 2, 3;
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, source, reference) VALUES ('air', 'b1', 'air', 'r2');
SELECT wallet, sum(points) FROM pg_temp.books WHERE who = 'bob' GROUP BY 1 ORDER BY 1;
-- a purchase moves to another member with all it gave
UPDATE loyalty.purchase SET member_id = pg_temp.m('cid') WHERE source = 'air' AND reference = 'a1';
SELECT who, wallet, sum(points) FROM pg_temp.books WHERE who IN ('ann', 'cid') GROUP BY 1, 2 ORDER BY 1, 2;
-- a wallet that comes later does not reach back
SELECT loyalty.add_wallet(pg_temp.p(), 'Late') > 0 AS late;
SELECT loyalty.add_rule(pg_temp.w('Late'), 'late', 'purchase', 'base', '1') > 0;
UPDATE loyalty.purchase SET amount = 12 WHERE source = 'air' AND reference = 'a2';
SELECT count(*) FROM pg_temp.books WHERE wallet = 'Late';
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('ann'), 1, 'air', 'a4');
SELECT who, seq, points FROM pg_temp.books WHERE wallet = 'Late';
-- merging, freezing and closing concern the wallets too
SELECT loyalty.set_member_status(pg_temp.m('cid'), 'frozen');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem(loyalty.wallet(pg_temp.m('cid'), 'Stamps'), 1, 'frozen')$$);
SELECT loyalty.set_member_status(pg_temp.m('cid'), 'active');
SELECT loyalty.merge_members(pg_temp.m('cid'), pg_temp.m('dan'), 'same'), loyalty.merge_members(pg_temp.m('cid'), pg_temp.m('dan'), 'same') AS again;
UPDATE loyalty.purchase SET amount = 20 WHERE source = 'air' AND reference = 'a1';
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'air' AND reference = 'a1';
SELECT who, wallet, sum(points) FROM pg_temp.books WHERE who IN ('cid', 'dan') GROUP BY 1, 2 ORDER BY 1, 2;
-- a household's members keep wallets of their own
SELECT loyalty.join_household(pg_temp.m('ann'), loyalty.create_household(pg_temp.p(), 'home'), 'family') > 0;
SELECT * FROM pg_temp.refused($$SELECT loyalty.wallet(pg_temp.m('home'), 'Status')$$);
INSERT INTO loyalty.purchase (member_id, amount, channel, source, reference) VALUES (pg_temp.m('ann'), 1, 'flight', 'air', 'a5'), (pg_temp.m('home'), 1, 'flight', 'air', 'h1');
SELECT e.points, e.account_id = pg_temp.m('home') AS home, e.account_id = loyalty.wallet(pg_temp.m('ann'), 'Status') AS status FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.source = 'air' AND p.reference IN ('a5', 'h1') ORDER BY e.source_id, e.account_id;
-- the batch law, with wallets
SELECT count(loyalty.add_rule(loyalty.add_wallet(loyalty.create_program('Air ' || x, expiry => 'never'), 'W', policies => '{"expiry": "never"}'), 'n', 'purchase', 'base', 'purchase.number * purchase.amount')) FROM unnest('{all,one}'::text[]) x;
SELECT count(loyalty.enroll(p.program_id, 'x' || g, '2024-01-01')) FROM loyalty.program p, generate_series(0, 39) g WHERE p.name ~ '^Air (all|one)$';
CREATE TEMP TABLE who AS SELECT p.name, m.external_id AS who, m.member_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name ~ '^Air (all|one)$';
CREATE TEMP TABLE sale AS SELECT g, 'x' || (g * 13) % 40 AS who, 1 + g % 9 AS amount, timestamptz '2024-05-01' + make_interval(mins => g) AS at FROM generate_series(1, 5000) g;
INSERT INTO loyalty.purchase (member_id, amount, occurred_at) SELECT w.member_id, s.amount, s.at FROM sale s JOIN who w USING (who) WHERE w.name = 'Air all' ORDER BY md5(s.g::text);
DO $$
BEGIN
    FOR n IN 1 .. 5000 LOOP
        INSERT INTO loyalty.purchase (member_id, amount, occurred_at) SELECT w.member_id, s.amount, s.at FROM sale s JOIN who w USING (who) WHERE w.name = 'Air one' AND s.g = n;
    END LOOP;
END
$$;
SELECT count(*) AS wallets, count(*) FILTER (WHERE a.lots::text = b.lots::text AND a.tally::text = b.tally::text) AS equal, sum(loyalty.total(a.lots)) AS points
    FROM who w JOIN who v ON v.who = w.who AND v.name = 'Air one' JOIN loyalty.account a ON a.account_id = loyalty.wallet(w.member_id, 'W') JOIN loyalty.account b ON b.account_id = loyalty.wallet(v.member_id, 'W')
    WHERE w.name = 'Air all';
SELECT * FROM loyalty.check();
