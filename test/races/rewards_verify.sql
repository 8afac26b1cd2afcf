-- Every row that this prints is something that went wrong.
SELECT 'refused with ' || state, count(*) FROM races.rewards_refused WHERE state NOT IN ('LY703', 'LY704', 'LY712', 'LY717', 'LY718', 'LY723', '40001') GROUP BY 1;
SELECT 'deadlocks', deadlocks FROM pg_stat_database WHERE datname = current_database() AND deadlocks > 0;
CREATE TEMP TABLE there AS
    SELECT r.name AS what, c.claim_id AS id FROM loyalty.claim c JOIN loyalty.reward r USING (reward_id) WHERE r.name NOT LIKE 'automatic%'
    UNION ALL SELECT 'purchase', purchase_id FROM loyalty.purchase
    UNION ALL SELECT 'codes', coupon_id FROM loyalty.coupon JOIN loyalty.coupon_pool p USING (pool_id) WHERE p.name = 'codes' AND status = 'issued'
    UNION ALL SELECT p.name, use_id FROM loyalty.coupon_use JOIN loyalty.coupon_pool p USING (pool_id);
SELECT 'acknowledged and not there', * FROM (SELECT what, id FROM races.rewards_answer EXCEPT ALL SELECT what, id FROM there) x;
SELECT 'there and not acknowledged', * FROM (SELECT what, id FROM there EXCEPT ALL SELECT what, id FROM races.rewards_answer) x;
SELECT 'not as many as there were', w.what, w.n, count(t.id) FROM (VALUES ('hundred', 100), ('codes', 100), ('uses', 100), ('single', 1),
        ('one each', (SELECT count(DISTINCT m.member_id) FROM loyalty.member m)),
        ('full card', (SELECT count(*) FROM loyalty.claim c JOIN loyalty.stamp_card k USING (card_id) WHERE k.name = 'card'))) w (what, n)
    LEFT JOIN there t USING (what) GROUP BY w.what, w.n HAVING count(t.id) <> w.n;
SELECT 'stamps', m.member_id, p.n, s.* FROM loyalty.member m CROSS JOIN LATERAL loyalty.stamp_cards(m.member_id) s JOIN loyalty.stamp_card k ON k.name = s.card CROSS JOIN LATERAL (SELECT count(*) AS n FROM loyalty.purchase p WHERE p.member_id = m.member_id AND p.status = 'completed') p
    CROSS JOIN LATERAL (SELECT count(*) AS taken FROM loyalty.claim c WHERE c.member_id = m.member_id AND c.card_id = k.card_id AND c.undone_at IS NULL) c
    WHERE s.stamps + s.every * (s.full_cards + c.taken) - s.debt <> p.n;
SELECT 'more than there were', r.name, count(*) FROM loyalty.claim c JOIN loyalty.reward r USING (reward_id) WHERE r.name LIKE 'automatic%' AND c.undone_at IS NULL
    GROUP BY r.name HAVING count(*) NOT BETWEEN 1 AND CASE r.name WHEN 'automatic' THEN 100 ELSE 50 END;
SELECT 'balance', m.member_id FROM loyalty.member m CROSS JOIN LATERAL loyalty.balance(m.member_id) b
    WHERE b.available <> 1000000 - 5 * (SELECT count(*) FROM loyalty.claim c WHERE c.member_id = m.member_id AND c.card_id IS NULL);
SELECT 'check()', * FROM loyalty.check();
