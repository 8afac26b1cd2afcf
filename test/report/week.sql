-- A week of the shop, up to now(): members join, buy, bring things back, spend points; staff decides what waits.
CREATE TABLE shop.done (upto timestamptz NOT NULL);
INSERT INTO shop.done SELECT starts FROM shop.clock;

CREATE FUNCTION shop.cashier(store text, v bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE store WHEN 'High Street' THEN (ARRAY['Ada', 'Ben', 'Cleo'])[1 + v % 3] WHEN 'Station' THEN (ARRAY['Dan', 'Eve'])[1 + v % 2] WHEN 'Market Hall' THEN 'Finn' END
$$;

CREATE PROCEDURE shop.join_members(upto timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    n record;
    id bigint;
BEGIN
    FOR n IN SELECT f.*, r.member_id AS referrer FROM shop.person f LEFT JOIN shop.person r ON r.p = f.brought_by WHERE f.member_id IS NULL AND f.joins + interval '9 hours' <= upto ORDER BY f.joins, f.p LOOP
        id := loyalty.enroll(1, 'customer ' || n.p, n.joins + interval '8 hours', birthday => date '1960-01-01' + (15000 * shop.u(n.p, 20))::integer,
            referral_code => CASE WHEN n.referrer IS NOT NULL THEN loyalty.referral_code(n.referrer) END);
        UPDATE shop.person SET member_id = id WHERE p = n.p;
        PERFORM loyalty.issue_coupon(id, 'welcome', 'joined');
        INSERT INTO loyalty.activity (member_id, occurred_at, kind, source, reference) VALUES (id, n.joins + interval '8 hours', 'sign-up', 'site', 'sign-up ' || n.p);
    END LOOP;
END $$;

CREATE PROCEDURE shop.sell(since timestamptz, upto timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    t record;
    paid record;
BEGIN
    CREATE TEMP TABLE sale ON COMMIT DROP AS
        SELECT v.*, b.lines, b.amount, p.member_id, shop.u(v.v, 21) AS mood, NULL::numeric AS money, NULL::bigint AS redemption_id
        FROM shop.visit v JOIN shop.basket b USING (v) LEFT JOIN shop.person p USING (p) WHERE v.at > since AND v.at <= upto;
    -- some pay a part with points, some with the coupon that welcomed them
    FOR t IN SELECT DISTINCT ON (s.member_id) s.* FROM sale s JOIN loyalty.member_balance b USING (member_id) WHERE s.mood < 0.16 AND b.available >= 200 AND b.debt = 0 LOOP
        SELECT * INTO paid FROM loyalty.redeem(t.member_id, 100000, 'till ' || t.v, partial => true, order_amount => least(t.amount, 15), store => t.store, cashier => shop.cashier(t.store, t.v));
        UPDATE sale SET money = paid.money, redemption_id = paid.redemption_id WHERE v = t.v;
    END LOOP;
    INSERT INTO loyalty.purchase (member_id, occurred_at, store, channel, amount, lines, paid_with_points, redemption_id, source, reference)
        SELECT member_id, at, store, CASE WHEN store = 'Web' THEN 'web' ELSE 'store' END, amount, lines, money, redemption_id, 'till', 'receipt ' || v FROM sale ORDER BY at, v;
    PERFORM loyalty.use_coupon(c.code, e.member_id, 'receipt ' || e.v, store => e.store)
        FROM (SELECT DISTINCT ON (member_id) * FROM sale WHERE k > 1 AND mood BETWEEN 0.3 AND 0.6) e, LATERAL (SELECT k.code FROM loyalty.coupons(e.member_id) k WHERE k.usable LIMIT 1) c;
END $$;

CREATE PROCEDURE shop.take_back(since timestamptz, upto timestamptz) LANGUAGE sql AS $$
    INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, occurred_at, lines, reason, source, reference)
        SELECT 'till', 'receipt ' || v.v, least(v.at + (1 + 5 * shop.u(v.v, 23)) * interval '1 day', now()), CASE WHEN shop.u(v.v, 24) < 0.5 THEN ARRAY[ROW(1, NULL, NULL, NULL)::loyalty.return_line] END,
               (ARRAY['changed my mind', 'damaged', 'wrong article', 'late delivery'])[1 + (4 * power(shop.u(v.v, 25), 1.6))::integer % 4], 'till', 'return ' || v.v
        FROM shop.visit v WHERE v.at > since - interval '7 days' AND v.at <= upto - interval '7 days' AND v.p IS NOT NULL AND shop.u(v.v, 22) < CASE WHEN v.store = 'Web' THEN 0.07 ELSE 0.02 END;
$$;

CREATE PROCEDURE shop.tell(since timestamptz, upto timestamptz) LANGUAGE sql AS $$
    INSERT INTO loyalty.activity (member_id, occurred_at, kind, value, subject, source, reference)
        SELECT p.member_id, v.at + interval '1 hour', 'nps', least(10, greatest(0, round(10.4 - 7 * power(shop.u(v.v, 27), 2.8))))::integer, NULL, 'mail', 'nps ' || v.v
        FROM shop.visit v JOIN shop.person p USING (p) WHERE v.at > since AND v.at <= upto AND shop.u(v.v, 26) < 0.12;
    INSERT INTO loyalty.activity (member_id, occurred_at, kind, value, subject, source, reference)
        SELECT p.member_id, v.at + interval '2 hours', 'review', 5, (b.lines)[1].sku, 'site', 'review ' || v.v
        FROM shop.visit v JOIN shop.basket b USING (v) JOIN shop.person p USING (p) WHERE v.at > since AND v.at <= upto AND shop.u(v.v, 28) < 0.04;
$$;

CREATE PROCEDURE shop.give(upto timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    m record;
    r record;
BEGIN
    -- rewards: those who have enough take what they like
    FOR m IN SELECT b.member_id, b.available, 1 + floor(6 * shop.u(b.member_id * 1000 + extract(week FROM upto)::integer, 30))::integer AS wish
             FROM loyalty.member_balance b WHERE b.available >= 250 AND b.debt = 0 AND b.member_id < 4000000000000001 AND shop.u(b.member_id * 1000 + extract(week FROM upto)::integer, 29) < 0.05 LOOP
        PERFORM loyalty.claim(m.member_id, w.name, 'counter ' || upto, cashier => shop.cashier('High Street', m.member_id)) FROM (VALUES (1, 'Free mug', 600), (2, 'Five pounds off', 500), (3, 'Five pounds off', 500), (4, 'Free delivery', 250), (5, 'Plant a meadow', 300), (6, 'Tea tasting', 900)) w (n, name, price)
            WHERE w.n = m.wish AND w.price <= m.available;
    END LOOP;
    FOR m IN SELECT b.member_id FROM loyalty.member_balance b WHERE b.available >= 2400 AND b.debt = 0 AND shop.u(b.member_id, 31) < 0.2 LIMIT 1 LOOP
        PERFORM loyalty.claim(m.member_id, 'Teapot', 'teapot ' || upto, cashier => 'Cleo');
    END LOOP;
    FOR m IN SELECT p.member_id, c.card, c.reward FROM shop.person p, loyalty.stamp_cards(p.member_id) c WHERE p.member_id % 8 = extract(week FROM upto)::integer % 8 AND c.full_cards > 0 LOOP
        PERFORM loyalty.claim(m.member_id, m.reward, 'card ' || upto, card => m.card, cashier => shop.cashier('Station', m.member_id));
    END LOOP;
    -- a voucher for a birthday, used by half of them
    FOR m IN SELECT p.member_id, p.p FROM shop.person p JOIN loyalty.member l USING (member_id) WHERE to_char(l.birthday, 'MMDD') > to_char(upto - interval '7 days', 'MMDD') AND to_char(l.birthday, 'MMDD') <= to_char(upto, 'MMDD') LOOP
        SELECT * INTO r FROM loyalty.make_voucher(1, 'amount', 5, m.member_id, valid_until => upto::date + 30, key => 'birthday ' || m.member_id || ' ' || upto::date);
        IF shop.u(m.p + upto::date - date '2000-01-01', 32) < 0.5 THEN
            PERFORM loyalty.redeem_voucher(r.token, 'birthday ' || m.member_id || ' ' || upto::date, m.member_id);
        END IF;
    END LOOP;
    -- a word to whom nobody saw for a quarter, and a sorry now and then
    FOR m IN SELECT b.member_id FROM loyalty.member_balance b WHERE b.last_event_at BETWEEN upto - interval '97 days' AND upto - interval '90 days' AND b.member_id < 4000000000000001
            AND NOT EXISTS (SELECT FROM loyalty.coupon c JOIN loyalty.coupon_pool q USING (pool_id) WHERE q.name = 'we miss you' AND c.member_id = b.member_id) LOOP
        PERFORM loyalty.issue_coupon(m.member_id, 'we miss you', 'missed ' || upto::date);
    END LOOP;
    PERFORM loyalty.adjust(p.member_id, 50, 'sorry for the wait', 'sorry ' || p.p || upto::date, upto) FROM shop.person p WHERE p.member_id IS NOT NULL AND shop.u(p.p + 7 * (upto::date - date '2000-01-01'), 33) < 0.001;
END $$;

-- the till asks what to offer to who will stand there within the day
CREATE PROCEDURE shop.offer(upto timestamptz) LANGUAGE sql AS $$
    SELECT count(*) FROM shop.visit v JOIN shop.basket b USING (v) JOIN shop.person p USING (p),
        LATERAL loyalty.suggest(p.member_id, ARRAY[(b.lines)[1 + v.v % cardinality(b.lines)].sku], 3, 1, v.store, CASE WHEN v.store = 'Web' THEN 'web' ELSE 'store' END) s
        WHERE v.at > upto AND v.at <= upto + interval '23 hours' AND p.member_id IS NOT NULL;
$$;

CREATE PROCEDURE shop.decide(upto timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM loyalty.approve(array_agg(q.source_id), 'read') FROM loyalty.review_queue q WHERE q.held_at < upto - interval '8 days' AND q.source_id % 9 <> 4 AND q.reason !~ 'limit|reached' HAVING count(*) > 0;
    PERFORM loyalty.refuse(array_agg(q.source_id), 'not about the article') FROM loyalty.review_queue q WHERE q.held_at < upto - interval '15 days' AND q.source_id % 9 = 4 HAVING count(*) > 0;
END $$;

-- one cashier, one friend, one afternoon: what unusual_cashiers is for
CREATE PROCEDURE shop.misbehave() LANGUAGE sql AS $$
    SELECT loyalty.adjust(m.member_id, 1000, 'stocktaking', 'friend') FROM (SELECT member_id FROM shop.person WHERE member_id IS NOT NULL ORDER BY p LIMIT 1) m;
    SELECT count(loyalty.redeem(m.member_id, 60, 'friend ' || i, store => 'Market Hall', cashier => 'Finn')) FROM (SELECT member_id FROM shop.person WHERE member_id IS NOT NULL ORDER BY p LIMIT 1) m, generate_series(1, 8) i;
$$;

CREATE PROCEDURE shop.week() LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz := (SELECT d.upto FROM shop.done d);
    upto timestamptz := now();
BEGIN
    CALL shop.join_members(upto);
    CALL shop.sell(since, upto);
    CALL shop.take_back(since, upto);
    CALL shop.tell(since, upto);
    CALL shop.give(upto);
    CALL shop.decide(upto);
    CALL shop.offer(upto);
    UPDATE shop.done SET upto = now();
END $$;
