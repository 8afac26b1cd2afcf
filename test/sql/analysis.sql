-- statistics by hand, and what is kept for analysis: a function of the purchases
\set ECHO queries
SET client_min_messages = warning;
SET timezone = 'UTC';
DROP EXTENSION IF EXISTS loyalty CASCADE;
CREATE EXTENSION loyalty;

-- the best fifth of ten is two: 50 + 20 of 100; a share of members is rounded up
SELECT loyalty.pareto_share(a, 0.2) AS fifth, loyalty.pareto_share(a, 0.11) AS rounded_up, loyalty.pareto_share(a, 0) AS none, loyalty.pareto_share(a, 1) AS "all"
    FROM unnest('{50,20,10,5,5,4,3,2,1,0,NULL}'::numeric[]) a;
SELECT (loyalty.pareto_curve(a))[10], (loyalty.pareto_curve(a))[11], (loyalty.pareto_curve(a))[100], cardinality(loyalty.pareto_curve(a))
    FROM unnest('{50,20,10,5,5,4,3,2,1,0}'::numeric[]) a;
SELECT loyalty.pareto_share(a, 0.2), loyalty.pareto_curve(a), loyalty.gini(a) FROM unnest('{0,0}'::numeric[]) a;
SELECT loyalty.pareto_share(a, 0.2), loyalty.pareto_curve(a), loyalty.gini(a) FROM unnest('{}'::numeric[]) a;
-- money is exact, however small beside the rest
SELECT loyalty.pareto_share(a, 0.5) FROM unnest('{100000000000000000000.0001,100000000000000000000.0001}'::numeric[]) a;
SELECT loyalty.pareto_share(1, 1.5);
SELECT loyalty.pareto_share('NaN', 0.5);
SELECT loyalty.gini(a) AS alike FROM unnest('{5,5,5}'::float8[]) a;
SELECT loyalty.gini(a) AS one_has_all FROM unnest('{0,0,0,8}'::float8[]) a;
SELECT loyalty.gini('infinity'::float8);
-- 3 promoters, 2 passives, 5 detractors: 30 - 50
SELECT loyalty.nps(s) FROM unnest('{9,10,10,7,8,0,1,5,6,6,NULL}'::int[]) s;
SELECT loyalty.nps(s) FROM unnest('{}'::int[]) s;
SELECT loyalty.nps(11);
SELECT loyalty.nps_final('{1,2}');
-- in parallel it is the same
CREATE TEMP TABLE score AS SELECT n % 11 AS s FROM generate_series(1, 1000) n;
SELECT loyalty.nps(s) = loyalty.nps_final(ARRAY[count(*) FILTER (WHERE s <= 6), count(*) FILTER (WHERE s IN (7, 8)), count(*) FILTER (WHERE s >= 9)]) AS counted, loyalty.nps_final(loyalty.nps_combine('{5,2,1}', '{0,0,2}')) AS combined FROM score;

-- BG/NBD at the published parameters of CDNOW; 1.226 is printed in the paper's note on spreadsheets
\set cdnow '0.243, 4.414, 0.793, 2.426'
SELECT round(loyalty.bgnbd_expected(:cdnow, 2, 30.43, 38.86, 39)::numeric, 3) AS published,
       round(loyalty.bgnbd_alive(:cdnow, 2, 30.43, 38.86)::numeric, 6) AS alive, loyalty.bgnbd_alive(:cdnow, 0, 0, 38.86) AS bought_once;
-- its likelihood from the formula, term by term: 0 repeat purchases leave r, alpha and T alone
SELECT round((loyalty.bgnbd_log_likelihood(:cdnow, 0, 0, 38.86) - 0.243 * ln(4.414 / (4.414 + 38.86)))::numeric, 12) AS zero;
-- one repeat purchase at the end of the time: (r / (alpha + T)) (alpha / (alpha + T))^r (b / (a + b) + a / (a + b))
SELECT round((loyalty.bgnbd_log_likelihood(:cdnow, 1, 10, 10) - ln(0.243 / 14.414 * (4.414 / 14.414) ^ 0.243))::numeric, 12) AS zero;
SELECT loyalty.bgnbd_expected(:cdnow, 2, 30.43, 38.86, 0) AS no_time, round(loyalty.bgnbd_expected(0.243, 4.414, 1, 2.426, 2, 30.43, 38.86, 39)::numeric, 3) AS a_is_1;
SELECT loyalty.bgnbd_log_likelihood(:cdnow, 1, 11, 10);
SELECT loyalty.bgnbd_alive(0, 1, 1, 1, 1, 1, 1);
SELECT loyalty.bgnbd_fit(0, 0, 10) IS NULL AS nobody_came_again;
-- what a fit reaches is a maximum: no neighbour is likelier, and it is the sum of the members' likelihoods
CREATE TEMP TABLE history AS
    SELECT (n % 5)::float8 AS x, CASE WHEN n % 5 = 0 THEN 0 ELSE 3 + n % 23 + (n % 5) END::float8 AS t_x, (34 + n % 11)::float8 AS t FROM generate_series(1, 500) n;
CREATE TEMP TABLE fit AS SELECT (loyalty.bgnbd_fit(x, t_x, t)).* FROM history;
SELECT f.converged, f.customers, bool_and(l.likelihood < f.log_likelihood - 1e-9) AS top, abs(max(l.own) - f.log_likelihood) < 1e-6 AS is_sum
FROM fit f CROSS JOIN LATERAL (
    SELECT (SELECT sum(loyalty.bgnbd_log_likelihood(f.r * d.r, f.alpha * d.alpha, f.a * d.a, f.b * d.b, h.x, h.t_x, h.t)) FROM history h) AS likelihood,
           (SELECT sum(loyalty.bgnbd_log_likelihood(f.r, f.alpha, f.a, f.b, h.x, h.t_x, h.t)) FROM history h) AS own
    FROM (VALUES (1.02, 1, 1, 1), (0.98, 1, 1, 1), (1, 1.02, 1, 1), (1, 0.98, 1, 1), (1, 1, 1.05, 1), (1, 1, 0.95, 1), (1, 1, 1, 1.05), (1, 1, 1, 0.95)) d (r, alpha, a, b)) l
GROUP BY f.converged, f.customers, f.log_likelihood;
-- gamma-gamma: between the own mean and that of all, p v / (q - 1); published parameters of CDNOW
SELECT round(loyalty.gamma_gamma_mean(6.25, 3.74, 15.44, 2, 22.35)::numeric, 4) AS two, round((6.25 * (15.44 + 2 * 22.35) / (12.5 + 3.74 - 1))::numeric, 4) AS by_hand;
SELECT loyalty.gamma_gamma_mean(1, 1, 1, 0, 5);
SELECT loyalty.gamma_gamma_fit(1, 5) IS NULL AS one_is_not_enough;

-- a programme small enough to reckon by hand
SELECT loyalty.create_program('Analysis', currency => 'GBP', point_value => 0.01) AS p \gset
SELECT loyalty.add_rule(:p, 'base', 'purchase', 'base', 'purchase.amount') \gset ignore_
INSERT INTO loyalty.product (program_id, sku, category, brand) VALUES (:p, 'tea', 'Drinks', 'Leaf'), (:p, 'coffee', 'Drinks', 'Bean'), (:p, 'cake', 'Sweets', NULL);
SELECT loyalty.enroll(:p, 'analysis a') AS a, loyalty.enroll(:p, 'analysis b') AS b, loyalty.enroll(:p, 'analysis c') AS c, loyalty.enroll(:p, 'analysis d') AS d, loyalty.enroll(:p, 'analysis e') AS e \gset
INSERT INTO loyalty.purchase (member_id, occurred_at, store, channel, amount, lines, source, reference) VALUES
    (:a, '2026-01-10 12:00+00', 'North', 'till', 100, loyalty.lines('[{"sku": "tea", "quantity": 2, "amount": 60}, {"sku": "cake", "quantity": 1, "amount": 40}]'), 'analysis', 'a1'),
    (:a, '2026-02-10 12:00+00', 'North', 'till', 100, loyalty.lines('[{"sku": "tea", "quantity": 1, "amount": 100}]'), 'analysis', 'a2'),
    (:a, '2026-03-12 12:00+00', 'South', 'web', 200, loyalty.lines('[{"sku": "tea", "quantity": 1, "amount": 150}, {"sku": "unknown", "quantity": 1, "amount": 50}]'), 'analysis', 'a3'),
    (:b, '2026-01-15 09:00+00', 'North', 'till', 50, NULL, 'analysis', 'b1'),
    (:b, '2026-01-15 10:00+00', 'North', 'till', 30, NULL, 'analysis', 'b2'),
    (:c, '2026-02-01 12:00+00', NULL, 'web', 20, NULL, 'analysis', 'c1'),
    (:d, '2026-03-01 12:00+00', 'South', 'till', 500, loyalty.lines('[{"sku": "coffee", "quantity": 5, "amount": 300}, {"sku": "cake", "quantity": 1, "amount": 200}]'), 'analysis', 'd1'),
    (:d, '2026-03-02 12:00+00', 'South', 'till', 999, NULL, 'analysis', 'd2'),
    (:e, '2026-03-31 12:00+00', 'North', 'till', 100, NULL, 'analysis', 'e1');
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'analysis' AND reference = 'd2';
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, occurred_at, amount, reason) VALUES ('analysis', 'e1', '2026-04-02 12:00+00', 50, 'broken');
SELECT count(*) FROM loyalty.bi_month WHERE program_id = :p;
CALL loyalty.refresh_analysis(2);

SELECT purchases, amount, returned, net_amount, average_order, buyers, repeat_buyers, repeat_rate, repeat_day_rate, top_fifth_share, as_of FROM loyalty.bi_program WHERE program_id = :p;
SELECT month, purchases, members, new_buyers, amount, returns, returned, net_amount FROM loyalty.bi_month WHERE program_id = :p ORDER BY 1;
SELECT day, store, channel, purchases, members, lines, quantity, amount, returned FROM loyalty.bi_day WHERE program_id = :p ORDER BY 1, 2;
SELECT store, purchases, members, amount, returned, first_day, last_day FROM loyalty.bi_store WHERE program_id = :p ORDER BY 1;
SELECT channel, purchases, members, amount FROM loyalty.bi_channel WHERE program_id = :p ORDER BY 1;
SELECT category, purchases, members, repeat_buyers, lines, quantity, amount, amount_share FROM loyalty.bi_category WHERE program_id = :p ORDER BY 1;
SELECT brand, purchases, members, amount FROM loyalty.bi_brand WHERE program_id = :p ORDER BY 1;
SELECT kind, name, other, baskets, with_name, with_other, with_both, support, confidence, lift FROM loyalty.bi_affinity WHERE program_id = :p ORDER BY 1, 2, 3;
SELECT month, store, reason, returns, returned, complete, mean_days FROM loyalty.bi_return WHERE program_id = :p ORDER BY 1;
SELECT top_percent, measure, members, amount, share FROM loyalty.bi_pareto WHERE program_id = :p AND top_percent IN (20, 21, 40, 100) ORDER BY 2, 1;
SELECT purchases, members, member_share, amount FROM loyalty.bi_frequency WHERE program_id = :p ORDER BY 1;
SELECT member_id - :a AS member, last_day, recency_days, frequency, monetary, net_amount, r_ntile, f_ntile, m_ntile, r_cume, f_cume, m_cume FROM loyalty.bi_rfm WHERE program_id = :p ORDER BY 1;
SELECT cohort, month_offset, members, cohort_members, retention, amount FROM loyalty.bi_cohort WHERE program_id = :p ORDER BY 1, 2;
SELECT step, members, rate, rate_of_all, mean_days, median_days FROM loyalty.bi_ladder WHERE program_id = :p ORDER BY 1;
SELECT member_id - :a AS member, purchase_days, mean_interval, next_expected_on, recency_days, intervals_missed, overdue, lapsed FROM loyalty.bi_cadence WHERE program_id = :p ORDER BY 1;
SELECT member_id - :a AS member, category, purchase_days, mean_interval, next_expected_on, overdue FROM loyalty.bi_category_cadence WHERE program_id = :p ORDER BY 1, 2;
-- three weeks without a purchase are many for whoever buys monthly: a setting
SELECT loyalty.set_analysis(:p, lapse_days => 55, lapse_factor => 1, compare_days => 30);
SELECT member_id - :a AS member, signals, reasons FROM loyalty.bi_churn WHERE program_id = :p ORDER BY 1;
SELECT reason, members, amount FROM loyalty.bi_churn_reason WHERE program_id = :p ORDER BY 1;
SELECT loyalty.set_analysis(:p, lapse_days => 0);
SELECT loyalty.set_analysis(-1);
SELECT event, name, members, purchases_before, purchases_after FROM loyalty.bi_before_after WHERE program_id = :p ORDER BY 1;
SELECT rule, campaign, awards, members, points, cost FROM loyalty.bi_rule WHERE program_id = :p ORDER BY 1;
SELECT count(*) AS members, bool_and(alive BETWEEN 0 AND 1) AS alive, bool_and(expected_purchases >= 0) AS expected FROM loyalty.bi_value WHERE program_id = :p;

-- what is kept is a function of the purchases: after any change it equals what is made from nothing
CREATE FUNCTION pg_temp.keep(name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY '{product,purchase,return,part,day,part_day,pair_day,member,member_month,member_store,member_part,model}'::text[] LOOP
        EXECUTE format('CREATE TEMP TABLE %s_%s AS SELECT to_jsonb(x) AS x FROM loyalty.analysis_%s x', name, t, t);
    END LOOP;
END $$;
CREATE FUNCTION pg_temp.differences(one text, other text) RETURNS TABLE (kept text, rows bigint) LANGUAGE plpgsql AS $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY '{product,purchase,return,part,day,part_day,pair_day,member,member_month,member_store,member_part,model}'::text[] LOOP
        kept := t;
        EXECUTE format('SELECT count(*) FROM ((TABLE %1$s_%3$s EXCEPT ALL TABLE %2$s_%3$s) UNION ALL (TABLE %2$s_%3$s EXCEPT ALL TABLE %1$s_%3$s)) d', one, other, t) INTO rows;
        IF rows > 0 THEN RETURN NEXT; END IF;
    END LOOP;
END $$;
-- late, corrected, voided, moved to another member, returned, another category, merged
INSERT INTO loyalty.purchase (member_id, occurred_at, store, channel, amount, source, reference) VALUES (:c, '2025-12-24 12:00+00', 'South', 'till', 70, 'analysis', 'c0');
UPDATE loyalty.purchase SET amount = 60 WHERE source = 'analysis' AND reference = 'b1';
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'analysis' AND reference = 'b2';
UPDATE loyalty.purchase SET member_id = :e WHERE source = 'analysis' AND reference = 'a2';
UPDATE loyalty.purchase SET store = 'East' WHERE source = 'analysis' AND reference = 'e1';
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, occurred_at) VALUES ('analysis', 'd1', '2026-03-05 12:00+00');
UPDATE loyalty.product SET category = 'Hot drinks' WHERE program_id = :p AND sku = 'tea';
DELETE FROM loyalty.product WHERE program_id = :p AND sku = 'cake';
SELECT loyalty.merge_members(:b, :c, 'the same') IS NOT NULL AS merged;
CALL loyalty.refresh_analysis();
SELECT touched FROM loyalty.analysis_run;
SELECT month, purchases, members, new_buyers, amount, returned FROM loyalty.bi_month WHERE program_id = :p ORDER BY 1;
SELECT member_id - :a AS member, frequency, monetary, net_amount FROM loyalty.bi_rfm WHERE program_id = :p ORDER BY 1;
SELECT category, purchases, amount FROM loyalty.bi_category WHERE program_id = :p ORDER BY 1;
SELECT pg_temp.keep('grown');
CALL loyalty.refresh_analysis(rebuild => true);
SELECT pg_temp.keep('rebuilt');
SELECT * FROM pg_temp.differences('grown', 'rebuilt');
-- nothing changed: nothing is made anew
CALL loyalty.refresh_analysis(3);
SELECT touched FROM loyalty.analysis_run;
-- a run that was left goes on where it was; what changes behind it is left to the next one
UPDATE loyalty.purchase SET amount = 65 WHERE source = 'analysis' AND reference = 'b1';
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (:d, '2026-04-01 12:00+00', 10, 'analysis', 'd3');
SELECT loyalty.begin_analysis(false) AS run \gset
SELECT loyalty.step_analysis(:run, 1) AS more, position IS NOT NULL AS under_way FROM loyalty.analysis_run;
SELECT refreshing, count(*) > 10 AS views FROM loyalty.bi_freshness WHERE kept GROUP BY 1;
CALL loyalty.refresh_analysis(1000000);
SELECT run = :run AS the_same, position IS NULL AS ended, touched FROM loyalty.analysis_run;
SELECT loyalty.step_analysis(:run, 1) AS over;
CALL loyalty.refresh_analysis(0);

-- who withdrew consent to analysis is left out of what tells of persons, at once; sales stay
SELECT loyalty.withdraw_consent(:a, 'analysis', 'form', 'test');
SELECT (SELECT count(*) FROM loyalty.bi_rfm WHERE member_id = :a) + (SELECT count(*) FROM loyalty.bi_churn WHERE member_id = :a) + (SELECT count(*) FROM loyalty.bi_value WHERE member_id = :a)
     + (SELECT count(*) FROM loyalty.bi_cadence WHERE member_id = :a) + (SELECT count(*) FROM loyalty.bi_category_cadence WHERE member_id = :a) AS told, buyers, amount FROM loyalty.bi_program WHERE program_id = :p;
-- nor is it shown to a function of the reader's own, which costs less than the view's conditions
CREATE ROLE analysis_reader;
SELECT loyalty.grant_bi('analysis_reader');
CREATE FUNCTION pg_temp.told(bigint, bigint) RETURNS boolean LANGUAGE plpgsql COST 0.00001 AS $$ BEGIN IF $1 = $2 THEN RAISE WARNING 'told'; END IF; RETURN true; END $$;
SET ROLE analysis_reader;
SELECT format('SELECT count(*) > 0 AS others FROM loyalty.%s WHERE pg_temp.told(member_id, %s)', v, :a) FROM unnest('{bi_rfm,bi_churn,bi_value,bi_cadence,bi_category_cadence}'::text[]) v \gexec
RESET ROLE;
DROP OWNED BY analysis_reader;
DROP ROLE analysis_reader;
SELECT loyalty.give_consent(:a, 'analysis', 'form', 'test', now() + interval '1 second');
SELECT buyers FROM loyalty.bi_program WHERE program_id = :p;
SELECT loyalty.set_analysis(:p, consent => 'opt_in');
SELECT buyers FROM loyalty.bi_program WHERE program_id = :p;
SELECT loyalty.erase_member(:a, 'asked');
SELECT buyers FROM loyalty.bi_program WHERE program_id = :p;
SELECT * FROM loyalty.check();

-- every sign of leaving, and what came before and after
SELECT loyalty.create_program('Signs', currency => 'GBP', tier_window => 'rolling', tier_months => 1) AS p2 \gset
SELECT loyalty.add_rule(:p2, 'base', 'purchase', 'base', 'purchase.amount') \gset ignore_
SELECT loyalty.add_rule(:p2, 'spring', 'purchase', 'bonus', '5', active_from => '2026-03-01', active_until => '2026-04-01') \gset ignore_
SELECT loyalty.add_tier(:p2, 'Blue', 0, 'spend'), loyalty.add_tier(:p2, 'Gold', 300, 'spend') \gset ignore_
INSERT INTO loyalty.member (program_id, external_id, joined_at) SELECT :p2, name, '2026-02-15' FROM unnest(ARRAY['overdue', 'returns', 'less often', 'tier lost', 'well']) name;
CREATE FUNCTION pg_temp.bought(name text, day date, amount numeric) RETURNS void LANGUAGE sql AS $$
    INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference)
        SELECT m.member_id, day + time '12:00', amount, 'signs', name || ' ' || day FROM loyalty.member m WHERE m.external_id = name $$;
SELECT count(pg_temp.bought('overdue', date '2026-06-01' + d, 10)::text) FROM unnest('{0,5,10}'::int[]) d \gset ignore_
SELECT pg_temp.bought('returns', '2026-06-25', 100) \gset ignore_
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, occurred_at, amount) VALUES ('signs', 'returns 2026-06-25', '2026-06-26', 60);
SELECT count(pg_temp.bought('less often', d, 10)::text) FROM unnest('{2026-02-01,2026-02-11,2026-03-01,2026-05-10,2026-05-12,2026-05-14,2026-05-16,2026-06-20}'::date[]) d \gset ignore_
SELECT pg_temp.bought('tier lost', '2026-03-10', 400) \gset ignore_
SELECT pg_temp.bought('tier lost', '2026-06-28', 10) \gset ignore_
SELECT pg_temp.bought('well', '2026-03-05', 20) \gset ignore_
SELECT pg_temp.bought('well', '2026-06-20', 40) \gset ignore_
SELECT pg_temp.bought('well', '2026-06-30', 20) \gset ignore_
SELECT loyalty.set_tier(m.member_id, 'Blue', '2099-12-31', 'test') IS NOT NULL AS lowered FROM loyalty.member m WHERE m.external_id = 'tier lost';
SELECT loyalty.set_analysis(:p2, compare_days => 30);
CALL loyalty.refresh_analysis();
SELECT m.external_id, c.recency_days, c.mean_interval, c.signals, c.overdue, c.buys_less_often, c.spends_less, c.returns_much, c.tier_lost, c.reasons
    FROM loyalty.bi_churn c JOIN loyalty.member m USING (member_id) WHERE c.program_id = :p2 ORDER BY 1;
SELECT event, name, days, members, purchases_before, purchases_after, amount_before, amount_after, average_order_before, average_order_after FROM loyalty.bi_before_after WHERE program_id = :p2 ORDER BY 1, 2;
SELECT rule, campaign, active_from, active_until, awards, members, points, response FROM loyalty.bi_rule WHERE program_id = :p2 ORDER BY 1;
SELECT tier, members, rank FROM loyalty.bi_tier WHERE program_id = :p2 ORDER BY 3;
SELECT from_tier, to_tier, direction, cause, sum(changes) FROM loyalty.bi_tier_movement WHERE program_id = :p2 GROUP BY 1, 2, 3, 4 ORDER BY 1 NULLS FIRST, 2;
-- a score of a survey in an activity
INSERT INTO loyalty.activity (member_id, kind, value) SELECT member_id, 'nps', 2 * (member_id % 6) FROM loyalty.member WHERE program_id = :p2;
SELECT kind, activities, mean_value, nps FROM loyalty.bi_activity WHERE program_id = :p2;
-- sums that are not those of the purchases are found
UPDATE loyalty.analysis_member SET amount = amount + 1 WHERE member_id = :e;
UPDATE loyalty.analysis_day SET purchases = purchases + 1 WHERE program_id = :p2 AND day = '2026-06-30';
SELECT * FROM loyalty.check();
CALL loyalty.refresh_analysis(rebuild => true);
SELECT * FROM loyalty.check();
