-- balances by date, statements, adjustments, expiry, reviews, held awards
\set ECHO queries
SET client_min_messages = warning;
SET timezone = 'UTC';
SELECT loyalty.create_program('Days', currency => 'EUR', hold_days => 14, expiry_months => 1, expiry_round => 'month', point_value => 0.5,
    downgrade => 'requalify', on_rule_error => 'hold') AS days \gset
SELECT loyalty.add_tier(:days, 'Silver', 100, 'points') > 0, loyalty.add_tier(:days, 'Gold', 1000, 'points') > 0;
SELECT loyalty.add_rule(:days, 'base', 'purchase', 'base', 'purchase.amount') > 0;
SELECT loyalty.enroll(:days, 'carl', '2023-01-01') AS carl \gset
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) VALUES (:carl, '2024-01-10', 120), (:carl, '2024-01-20', 30);
-- what a member had on any day, with no job run
SELECT d::date AS day, b.* FROM unnest('{2024-01-09,2024-01-10,2024-01-24,2024-02-03,2024-02-29,2024-03-01,2024-04-01}'::date[]) d, loyalty.balance(:carl, d) b;
SELECT lots FROM loyalty.account WHERE account_id = :carl;
SELECT seq, kind, points, balance_after, expires_on FROM loyalty.statement(:carl);
-- the books close what died when an account is next touched
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) VALUES (:carl, '2024-03-05', 10);
SELECT seq, kind, points, lots FROM loyalty.entry WHERE account_id = :carl ORDER BY seq;
-- and by close_expired, which has nothing left to do the second time
CALL loyalty.close_expired('2024-07-01');
CALL loyalty.close_expired('2024-07-01');
SELECT seq, kind, points, lots FROM loyalty.entry WHERE account_id = :carl AND seq > 4 ORDER BY seq;
-- reviews: good to the end of the next year, then what was earned
SELECT tier, good_until, cause FROM loyalty.tier_history WHERE member_id = :carl ORDER BY valid_from;
CALL loyalty.review_tiers('2025-12-31');
CALL loyalty.review_tiers('2026-01-01');
CALL loyalty.review_tiers('2026-01-01');
SELECT tier, good_until, cause FROM loyalty.tier_history WHERE member_id = :carl ORDER BY valid_from;
SELECT loyalty.set_tier(:carl, 'Gold', current_date + 30, 'a friend of the house');
SELECT tier, cause, reason FROM loyalty.tier_history WHERE member_id = :carl ORDER BY valid_from DESC LIMIT 1;
-- adjustments: reason, key, debt, repayment
SELECT loyalty.adjust(:carl, 100, 'goodwill', key => 'g1') AS seq;
SELECT loyalty.adjust(:carl, 100, 'goodwill', key => 'g1') AS the_same_seq;
SELECT loyalty.adjust(:carl, 100, 'other', key => 'g1');
SELECT loyalty.adjust(:carl, -130, 'mistake') AS seq;
SELECT available, pending, debt FROM loyalty.balance(:carl);
SELECT loyalty.adjust(:carl, 50, 'again') AS seq;
SELECT available, pending, debt FROM loyalty.balance(:carl);
-- opening balances and history
SELECT loyalty.enroll(:days, 'dora', '2020-01-01') AS dora \gset
SELECT loyalty.open_balance(:dora, 500, 'from the old cards', occurred_at => '2023-12-31', expires_on => '2030-01-01', spend => 1234.5, visits => 17) AS seq;
SELECT loyalty.open_balance(:dora, 500, 'from the old cards', occurred_at => '2023-12-31', expires_on => '2030-01-01', spend => 1234.5, visits => 17) AS the_same_seq;
SELECT loyalty.import_entry(:dora, 20, '2023-06-01', 'old purchase 17', 'old-17', expires_on => '2030-01-01', spend => 20, visits => 1) AS seq;
SELECT lots, tally FROM loyalty.account WHERE account_id = :dora;
-- a rule that raises parks the award; the sale stands
SELECT loyalty.add_rule(:days, 'broken', 'purchase', 'bonus', '1 / (purchase.amount - 5)') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) VALUES (:dora, '2024-05-01', 4, 'ok?'), (:dora, '2024-05-02', 5, 'held'), (:dora, '2024-05-03', 8, 'ok');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) VALUES (:dora, '2024-05-02', 5, 'held too');
SELECT p.reference, h.reason FROM loyalty.held_award_open h JOIN loyalty.purchase p ON p.purchase_id = h.source_id ORDER BY 1;
SELECT loyalty.release_award(purchase_id) FROM loyalty.purchase WHERE reference = 'held';
SELECT loyalty.replace_rule(:days, 'broken', points => '1', from_at => '-infinity');
SELECT loyalty.release_award(purchase_id) FROM loyalty.purchase WHERE reference = 'held';
SELECT reference, e.kind, points FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE account_id = :dora ORDER BY seq;
-- cabinet
SELECT jsonb_path_query(loyalty.cabinet(:dora), '$.worth.text'), loyalty.cabinet(:dora) -> 'lifetime' AS lifetime, jsonb_array_length(loyalty.cabinet(:dora) -> 'statement') AS lines;
-- lint
SELECT loyalty.add_rule(:days, 'too late', 'purchase', 'bonus', '5', active_until => '2020-01-01') > 0;
SELECT loyalty.add_rule(:days, 'impossible', 'purchase', 'bonus', '5', '1 = 2') > 0;
SELECT loyalty.add_rule(:days, 'base again', 'purchase', 'base', 'purchase.amount') > 0;
SELECT loyalty.add_rule(:days, 'platinum', 'purchase', 'multiply', '1', 'member.tier = ''Platinum''') > 0;
SELECT rule, severity, finding FROM loyalty.lint_rules(:days);
SELECT * FROM loyalty.check();
