-- stamp cards: purchases fill them, returns take stamps back, full ones are rewards
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
    message := regexp_replace(message, '(member|programme|purchase|claim) \d+', '\1 N', 'g');
    detail := regexp_replace(split_part(detail, E'\n', 1), 'Claim \d+', 'Claim N');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p(what text DEFAULT 'Stamps') RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = what $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.cards(who text) RETURNS TABLE (card text, stamps numeric, missing numeric, full_cards bigint, debt numeric) LANGUAGE sql AS $$ SELECT card, stamps, missing, full_cards, debt FROM loyalty.stamp_cards(pg_temp.m(who)) $$;
CREATE FUNCTION pg_temp.buy(who text, ref text, lines jsonb, at timestamptz DEFAULT now()) RETURNS void LANGUAGE sql AS $$
    INSERT INTO loyalty.purchase (member_id, amount, lines, reference, occurred_at)
    SELECT pg_temp.m(who), sum((l ->> 'quantity')::numeric * (l ->> 'unit_price')::numeric), loyalty.lines(lines), ref, at FROM jsonb_array_elements(lines) l $$;
CREATE FUNCTION pg_temp.coffee(n integer) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_array(jsonb_build_object('sku', 'latte', 'quantity', n, 'unit_price', 3)) $$;
SELECT loyalty.create_program('Stamps', currency => 'EUR', time_zone => 'Europe/Berlin') > 0 AS made, loyalty.create_program('No stamps') > 0 AS another;
SELECT count(loyalty.enroll(pg_temp.p(), name, joined_at => '2024-01-01')) FROM unnest('{ann,bea,cid,dan,eve,fay,gus,hal}'::text[]) name;
SELECT loyalty.enroll(pg_temp.p('No stamps'), 'zoe') > 0 AS zoe;
INSERT INTO loyalty.product (program_id, sku, category, excluded) VALUES (pg_temp.p(), 'latte', 'coffee', false), (pg_temp.p(), 'beans', 'coffee', false), (pg_temp.p(), 'scone', 'food', false), (pg_temp.p(), 'gift card', 'coffee', true);
SELECT loyalty.add_reward(pg_temp.p(), 'free coffee', 'product', NULL, sku => 'latte') > 0 AS coffee, loyalty.add_reward(pg_temp.p(), 'voucher', 'discount_amount', 500, 5, stock => 2) > 0 AS money, loyalty.add_reward(pg_temp.p(), 'regular', 'badge', 0) > 0 AS badge;
-- what is no card
SELECT n, r.state, regexp_replace(r.detail, '[0-9-]{10}T[0-9:.+]*', 'now', 'g') AS detail FROM (VALUES (1, $$'x', 'cups', 3, 'free coffee'$$), (2, $$'x', 'units', 0, 'free coffee'$$), (3, $$'x', 'units', 'NaN', 'free coffee'$$), (4, $$'x', 'units', 0.00001, 'free coffee'$$), (5, $$'x', 'units', 3, 'no such'$$), (6, $$'', 'units', 3, 'free coffee'$$), (7, $$NULL, 'units', 3, 'free coffee'$$),
    (8, $$'x', 'units', 3, 'free coffee', 'line.sku'$$), (9, $$'x', 'units', 3, 'free coffee', 'member.staff'$$), (10, $$'x', 'units', 3, 'free coffee', 'purchase.number > 1'$$), (11, $$'x', 'units', 3, 'free coffee', 'true) OR (true'$$), (12, $$'x', 'units', 3, 'free coffee', expiry_days => 0$$),
    (13, $$'x', 'units', 3, 'free coffee', on_return => 'keep'$$), (14, $$'x', 'units', 3, 'free coffee', valid_until => now()$$), (15, $$'x', 'units', 3, 'free coffee', 'true) OR (true', 'coffee'$$)) c (n, call),
    pg_temp.refused(format('SELECT loyalty.add_stamp_card(pg_temp.p(), %s)', call)) r ORDER BY n;
SELECT loyalty.add_stamp_card(pg_temp.p(), 'coffee', 'units', 10, 'free coffee', category => 'coffee') > 0 AS coffee, loyalty.add_stamp_card(pg_temp.p(), 'visits', 'visits', 3, 'regular', 'purchase.amount >= 5') > 0 AS visits,
       loyalty.add_stamp_card(pg_temp.p(), 'spend', 'amount', 50, 'voucher', 'line.sku IS DISTINCT FROM ''beans''', on_return => 'forgive') > 0 AS spend;
SELECT r.state, r.detail FROM pg_temp.refused($$SELECT loyalty.add_stamp_card(pg_temp.p(), 'coffee', 'units', 3, 'free coffee')$$) r;
SELECT name, counts, every, condition, on_return, automatic FROM loyalty.stamp_card WHERE program_id = pg_temp.p() ORDER BY card_id;
-- units of the category, visits of some size, money of what counts; excluded articles never
SELECT pg_temp.buy('ann', 'st-1', '[{"sku": "latte", "quantity": 3, "unit_price": 3}, {"sku": "beans", "quantity": 0.5, "unit_price": 20}, {"sku": "scone", "quantity": 2, "unit_price": 2.55}, {"sku": "gift card", "quantity": 1, "unit_price": 50}]');
SELECT * FROM pg_temp.cards('ann');
SELECT pg_temp.buy('ann', 'st-2', pg_temp.coffee(1));
SELECT * FROM pg_temp.cards('ann');
-- the same row again gives nothing again; a guest nothing; another programme nothing
UPDATE loyalty.purchase SET attributes = '{}' WHERE reference = 'st-1';
INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (NULL, 50, 'st-guest'), ((SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p('No stamps')), 50, 'st-zoe');
SELECT * FROM pg_temp.cards('ann');
-- without lines: a visit and its money, no units
INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (pg_temp.m('bea'), 20.40, 'st-3');
SELECT * FROM pg_temp.cards('bea');
-- a return takes back what its part had given, in any number of parts
INSERT INTO loyalty.purchase_return (purchase_reference, lines) VALUES ('st-1', loyalty.return_lines('[{"sku": "latte", "quantity": 1}]'));
SELECT * FROM pg_temp.cards('ann');
INSERT INTO loyalty.purchase_return (purchase_reference, lines) VALUES ('st-1', loyalty.return_lines('[{"sku": "beans", "quantity": 0.1}, {"sku": "scone", "amount": 2.00}]'));
SELECT * FROM pg_temp.cards('ann');
INSERT INTO loyalty.purchase_return (purchase_reference, amount) VALUES ('st-3', 10.20);
SELECT * FROM pg_temp.cards('bea');
INSERT INTO loyalty.purchase_return (purchase_reference) VALUES ('st-1'), ('st-3');
SELECT * FROM pg_temp.cards('ann') UNION ALL SELECT * FROM pg_temp.cards('bea');
SELECT kind, amount FROM loyalty.stamp n JOIN loyalty.stamp_card USING (card_id) WHERE n.member_id = pg_temp.m('ann') AND name = 'coffee' ORDER BY stamp_id;
-- a void purchase gives nothing, an amended one what it is now, a moved one moves its stamps
UPDATE loyalty.purchase SET status = 'void' WHERE reference = 'st-2';
SELECT * FROM pg_temp.cards('ann');
UPDATE loyalty.purchase SET status = 'completed', amount = 18, lines = loyalty.lines(pg_temp.coffee(6)) WHERE reference = 'st-2';
SELECT * FROM pg_temp.cards('ann');
UPDATE loyalty.purchase SET member_id = pg_temp.m('bea') WHERE reference = 'st-2';
SELECT 'ann' AS who, * FROM pg_temp.cards('ann') UNION ALL SELECT 'bea', * FROM pg_temp.cards('bea');
UPDATE loyalty.purchase SET member_id = NULL WHERE reference = 'st-2';
SELECT * FROM pg_temp.cards('bea');
UPDATE loyalty.purchase SET member_id = pg_temp.m('ann') WHERE reference = 'st-2';
SELECT * FROM loyalty.check();
-- a full card is claimed, once
SELECT n, r.* FROM (VALUES (1, $$'free coffee', 'c1', card => 'coffee'$$), (2, $$'free coffee', 'c1'$$), (3, $$'voucher', 'c1', card => 'coffee'$$), (4, $$'free coffee', 'c1', card => 'no such'$$)) c (n, call), pg_temp.refused(format('SELECT loyalty.claim(pg_temp.m(%L), %s)', 'ann', call)) r ORDER BY n;
SELECT pg_temp.buy('ann', 'st-4', pg_temp.coffee(15));
SELECT * FROM pg_temp.cards('ann');
SELECT reward, points, claimable, obstacle, why FROM loyalty.rewards_for(pg_temp.m('ann'));
SELECT points, redemption_id FROM loyalty.claim(pg_temp.m('ann'), 'free coffee', 'c1', card => 'coffee');
SELECT points AS the_same FROM loyalty.claim(pg_temp.m('ann'), 'free coffee', 'c1', card => 'coffee');
SELECT r.* FROM unnest(ARRAY[$$, card => 'visits'$$, '', $$, 2, 'coffee'$$]) c, pg_temp.refused(format('SELECT loyalty.claim(pg_temp.m(%L), %L, %L%s)', 'ann', 'free coffee', 'c1', c)) r;
SELECT r.* FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('ann'), 'free coffee', 'c2', 2, 'coffee')$$) r;
SELECT points FROM loyalty.claim(pg_temp.m('ann'), 'free coffee', 'c2', card => 'coffee');
SELECT * FROM pg_temp.cards('ann');
SELECT restored FROM loyalty.undo_claim(pg_temp.m('ann'), 'c2', 'Machine was broken');
SELECT full_cards, stamps FROM pg_temp.cards('ann') WHERE card = 'coffee';
SELECT points FROM loyalty.claim(pg_temp.m('ann'), 'free coffee', 'c3', card => 'coffee');
-- what comes back after it was spent is owed, and later stamps repay it
INSERT INTO loyalty.purchase_return (purchase_reference, lines) VALUES ('st-4', loyalty.return_lines('[{"sku": "latte", "quantity": 4}]'));
SELECT * FROM pg_temp.cards('ann') WHERE card <> 'visits';
SELECT pg_temp.buy('ann', 'st-5', pg_temp.coffee(5));
SELECT * FROM pg_temp.cards('ann');
SELECT restored FROM loyalty.undo_claim(pg_temp.m('ann'), 'c1', 'Never fetched');
SELECT * FROM pg_temp.cards('ann') WHERE card = 'coffee';
-- forgiven where the card says so
SELECT pg_temp.buy('cid', 'st-6', '[{"sku": "scone", "quantity": 20, "unit_price": 2.5}]');
SELECT points FROM loyalty.claim(pg_temp.m('cid'), 'voucher', 'v1', card => 'spend');
INSERT INTO loyalty.purchase_return (purchase_reference) VALUES ('st-6');
SELECT * FROM pg_temp.cards('cid');
SELECT * FROM loyalty.check();
-- stamps die; the card has its time
SELECT loyalty.add_stamp_card(pg_temp.p(), 'month', 'units', 3, 'free coffee', 'product.category = ''food''', expiry_days => 30, valid_from => '2024-01-01') > 0 AS month;
SELECT * FROM pg_temp.cards('cid') WHERE card = 'month';
SELECT pg_temp.buy('dan', 'st-7', '[{"sku": "scone", "quantity": 2, "unit_price": 2}]', now() - interval '40 days');
SELECT pg_temp.buy('dan', 'st-8', '[{"sku": "scone", "quantity": 2, "unit_price": 2}]', now() - interval '29 days');
SELECT stamps, missing, full_cards, next_expiry, next_expiry_on - loyalty.local_day(pg_temp.p(), now()) AS days FROM loyalty.stamp_cards(pg_temp.m('dan')) WHERE card = 'month';
SELECT pg_temp.buy('dan', 'st-9', '[{"sku": "scone", "quantity": 2, "unit_price": 2}]');
SELECT points FROM loyalty.claim(pg_temp.m('dan'), 'free coffee', 'd1', card => 'month');
SELECT stamps, next_expiry, next_expiry_on - loyalty.local_day(pg_temp.p(), now()) AS days FROM loyalty.stamp_cards(pg_temp.m('dan')) WHERE card = 'month';
INSERT INTO loyalty.purchase_return (purchase_reference) VALUES ('st-7');
SELECT stamps AS the_dead_ones_came_back, debt FROM loyalty.stamp_cards(pg_temp.m('dan')) WHERE card = 'month';
SELECT pg_temp.buy('dan', 'st-10', '[{"sku": "scone", "quantity": 2, "unit_price": 2}]', '2023-12-31');
SELECT stamps AS before_its_time FROM loyalty.stamp_cards(pg_temp.m('dan')) WHERE card = 'month';
-- with a start in the past the purchases on file count
SELECT loyalty.add_stamp_card(pg_temp.p(), 'all coffee', 'units', 10, 'free coffee', category => 'coffee', valid_from => '2024-01-01') > 0 AS made;
SELECT card, stamps, full_cards FROM pg_temp.cards('ann') WHERE card LIKE '%coffee';
-- automatic: claimed in the transaction of the purchase; without stock the card stays full
SELECT loyalty.add_stamp_card(pg_temp.p(), 'auto', 'units', 5, 'voucher', 'line.sku = ''beans''', automatic => true, on_return => 'revoke') > 0 AS made;
SELECT pg_temp.buy('eve', 'st-11', '[{"sku": "beans", "quantity": 6, "unit_price": 4}]');
SELECT card, stamps, full_cards FROM pg_temp.cards('eve') WHERE card = 'auto';
SELECT name, quantity, c.points, c.key LIKE 'loyalty:card %' AS own_key FROM loyalty.claim c JOIN loyalty.reward USING (reward_id) WHERE member_id = pg_temp.m('eve');
SELECT loyalty.stock_left(stock_id) AS left FROM loyalty.reward WHERE program_id = pg_temp.p() AND name = 'voucher';
SELECT pg_temp.buy('eve', 'st-12', '[{"sku": "beans", "quantity": 5, "unit_price": 4}]');
SELECT card, stamps, full_cards FROM pg_temp.cards('eve') WHERE card = 'auto';
-- revoked: a return that leaves the card in debt undoes what nobody used
INSERT INTO loyalty.purchase_return (purchase_reference) VALUES ('st-12');
SELECT card, stamps, full_cards, debt FROM pg_temp.cards('eve') WHERE card = 'auto';
INSERT INTO loyalty.purchase_return (purchase_reference, lines) VALUES ('st-11', loyalty.return_lines('[{"sku": "beans", "quantity": 3}]'));
SELECT card, stamps, full_cards, debt FROM pg_temp.cards('eve') WHERE card = 'auto';
SELECT count(*) AS claims, count(undone_at) AS undone, min(reason) AS reason FROM loyalty.claim WHERE member_id = pg_temp.m('eve');
SELECT loyalty.stock_left(stock_id) AS left FROM loyalty.reward WHERE program_id = pg_temp.p() AND name = 'voucher';
-- one whose code was used stays owed
SELECT loyalty.add_coupon_pool(pg_temp.p(), 'stamp codes', 'service') > 0 AS pool, loyalty.import_coupons(pg_temp.p(), 'stamp codes', '{STAMP-1}') AS codes;
SELECT loyalty.add_reward(pg_temp.p(), 'wash', 'service', NULL, issues => 'coupon', pool => 'stamp codes') > 0 AS wash;
SELECT loyalty.add_stamp_card(pg_temp.p(), 'wash', 'visits', 1, 'wash', 'purchase.channel = ''wash''', automatic => true, on_return => 'revoke') > 0 AS made;
INSERT INTO loyalty.purchase (member_id, amount, channel, reference) VALUES (pg_temp.m('fay'), 9, 'wash', 'st-13');
SELECT code, pool FROM loyalty.coupons(pg_temp.m('fay'));
SELECT kind FROM loyalty.use_coupon('stamp-1', pg_temp.m('fay'), 'w1');
UPDATE loyalty.purchase SET status = 'void' WHERE reference = 'st-13';
SELECT * FROM pg_temp.cards('fay') WHERE card = 'wash';
-- a batch is as its rows one by one
INSERT INTO loyalty.purchase (member_id, amount, lines, reference) SELECT pg_temp.m(who), 6, loyalty.lines(pg_temp.coffee(2)), format('st-batch %s %s', who, i) FROM unnest('{gus,hal}'::text[]) who, generate_series(1, 6) i;
SELECT who, c.* FROM unnest('{gus,hal}'::text[]) who, pg_temp.cards(who) c WHERE card IN ('coffee', 'visits', 'spend');
-- a condition that fails refuses the sale, or lets it stand, as the programme says of rules
SELECT loyalty.add_stamp_card(pg_temp.p(), 'fails', 'visits', 1, 'regular', '1 / (purchase.line_count - 1) > 0 AND purchase.store = ''S''') > 0 AS made;
SELECT r.* FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, store, lines, reference) VALUES (pg_temp.m('gus'), 3, 'S', loyalty.lines(pg_temp.coffee(1)), 'st-14')$$) r;
UPDATE loyalty.program SET on_rule_error = 'hold' WHERE program_id = pg_temp.p();
SET client_min_messages = error;
INSERT INTO loyalty.purchase (member_id, amount, store, lines, reference) VALUES (pg_temp.m('gus'), 3, 'S', loyalty.lines(pg_temp.coffee(1)), 'st-14');
SELECT loyalty.retire_stamp_card(pg_temp.p(), 'fails', 'Nonsense'), loyalty.retire_stamp_card(pg_temp.p(), 'fails', 'Nonsense');
UPDATE loyalty.purchase SET attributes = '{}' WHERE reference = 'st-14';
SET client_min_messages = warning;
SELECT card, stamps FROM pg_temp.cards('gus') WHERE card = 'coffee';
-- a retired card counts no more and can still be claimed; its reward stays until then
SELECT r.* FROM unnest(ARRAY[$$SELECT loyalty.retire_reward(pg_temp.p(), 'free coffee')$$, $$SELECT loyalty.retire_stamp_card(pg_temp.p(), 'no such')$$]) s, pg_temp.refused(s) r;
SELECT loyalty.retire_stamp_card(pg_temp.p(), 'coffee', 'Season over');
SELECT pg_temp.buy('hal', 'st-15', pg_temp.coffee(9));
SELECT card, stamps, full_cards, open FROM loyalty.stamp_cards(pg_temp.m('hal')) WHERE card = 'coffee';
SELECT points FROM loyalty.claim(pg_temp.m('hal'), 'free coffee', 'h1', card => 'coffee');
-- whoever takes over a member takes over the stamps, and what is owed; later returns go there
SELECT 'ann' AS who, * FROM pg_temp.cards('ann') UNION ALL SELECT 'hal', * FROM pg_temp.cards('hal');
SELECT loyalty.merge_members(pg_temp.m('ann'), pg_temp.m('hal'), 'Same person') > 0 AS merged, loyalty.merge_members(pg_temp.m('ann'), pg_temp.m('hal'), 'Same person') AS again;
SELECT 'ann' AS who, * FROM pg_temp.cards('ann') WHERE stamps > 0 OR debt > 0 UNION ALL SELECT 'hal', * FROM pg_temp.cards('hal');
INSERT INTO loyalty.purchase_return (purchase_reference) VALUES ('st-5');
SELECT card, stamps, full_cards, debt FROM pg_temp.cards('hal');
SELECT restored FROM loyalty.undo_claim(pg_temp.m('ann'), 'c3', 'Was not hers');
SELECT card, stamps, full_cards, debt FROM pg_temp.cards('hal') WHERE card = 'coffee';
SELECT jsonb_path_query_array(loyalty.cabinet(pg_temp.m('hal')), '$.stamp_cards[*].card') AS in_the_cabinet;
SELECT r.state FROM pg_temp.refused($$SELECT loyalty.stamp_cards(-1)$$) r;
-- nothing is edited, nothing is deleted
SELECT r.state, r.message FROM unnest(ARRAY['UPDATE loyalty.stamp_card SET every = 1', 'DELETE FROM loyalty.stamp_card', 'TRUNCATE loyalty.stamp_card', 'UPDATE loyalty.stamp SET amount = 1', 'DELETE FROM loyalty.stamp', 'TRUNCATE loyalty.stamp', 'DELETE FROM loyalty.stamp_sheet', 'TRUNCATE loyalty.stamp_sheet']) s, pg_temp.refused(s) r;
SELECT * FROM loyalty.check();
-- what is broken is seen
BEGIN;
UPDATE loyalty.stamp_sheet SET lots = '{}' WHERE member_id = pg_temp.m('hal') AND card_id = (SELECT card_id FROM loyalty.stamp_card WHERE program_id = pg_temp.p() AND name = 'visits');
ALTER TABLE loyalty.stamp DISABLE TRIGGER USER;
UPDATE loyalty.stamp SET amount = amount + 1 WHERE stamp_id = (SELECT max(stamp_id) FROM loyalty.stamp WHERE purchase_id IS NOT NULL AND member_id = pg_temp.m('gus'));
UPDATE loyalty.stock_share SET remaining = remaining + 1 WHERE stock_id = (SELECT stock_id FROM loyalty.reward WHERE program_id = pg_temp.p() AND name = 'voucher') AND share = 0;
DELETE FROM loyalty.reward_taken; DELETE FROM loyalty.coupon_taken;
SELECT invariant, count(*) FROM loyalty.check() GROUP BY 1 ORDER BY 1;
ROLLBACK;
-- a wallet has no purchases of its own to stamp
BEGIN;
SELECT loyalty.add_wallet(pg_temp.p(), 'no stamps') > 0 AS wallet;
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_stamp_card((SELECT program_id FROM loyalty.program WHERE wallet = 'no stamps'), 'wallet', 'units', 5, 'voucher')$$);
ROLLBACK;
