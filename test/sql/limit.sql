-- velocity limits: so much in any window, for each subject
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS loyalty CASCADE;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Guarded', time_zone => 'UTC') AS program;
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
SELECT loyalty.add_rule(1, 'reviews', 'activity', 'bonus', '10');
SELECT loyalty.enroll(1, name) AS member FROM unnest(ARRAY['ann', 'bea', 'cid', 'dan']) name;
\set since '''2025-01-01''::timestamptz'

-- what is not valid
SELECT loyalty.add_limit(1, 'x', 3, '1 month');
SELECT loyalty.add_limit(1, 'x', 1.5, '1 day');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', event => 'line');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', verdict => 'maybe');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', subject => 'purchase.nothing');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', subject => 'member.tier');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', condition => 'purchase.number > 3');
SELECT loyalty.add_limit(1, 'x', 3, '1 day', event => 'activity', measure => 'amount');
SELECT loyalty.add_limit(2, 'x', 3, '1 day');
SELECT loyalty.retire_limit(1, 'x');

SELECT loyalty.add_limit(1, 'three a day', 3, '1 day', active_from => :since);
SELECT loyalty.add_limit(1, 'card', 500, '1 day', measure => 'points', subject => 'purchase.attributes ->> ''card''',
                         verdict => 'clip', active_from => :since, subject_kind => 'card');
SELECT loyalty.add_limit(1, 'till', 100000, '1 hour', measure => 'amount', subject => 'purchase.store', verdict => 'reject', active_from => :since);
SELECT loyalty.add_limit(1, 'watched', 1, '1 hour', event => 'activity', verdict => 'allow', active_from => :since);
SELECT loyalty.add_limit(1, 'three a day', 3, '1 day');

-- a fourth purchase in a day waits, whoever asks, and the sale stands
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference)
    SELECT 1, timestamptz '2025-06-01 08:00+00' + n * interval '1 hour', 10, 'a' || n FROM generate_series(1, 5) n;
SELECT reason, detail, count(*) FROM loyalty.held_award GROUP BY 1, 2;
SELECT source_id, verdict, reason, wanted, used, granted, points_wanted, points FROM loyalty.limit_decision ORDER BY decision_id;
SELECT available + pending AS points FROM loyalty.balance(1);
-- a day and a part of it later there is room again
SELECT points FROM loyalty.quote(1, 10, occurred_at => '2025-06-02 09:30+00');
SELECT points FROM loyalty.quote(1, 10, occurred_at => '2025-06-02 12:30+00');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) VALUES (1, '2025-06-02 12:30+00', 10, 'b1');
SELECT available + pending AS points FROM loyalty.balance(1);
-- a released one is a person's word: it is no part of what is counted
SELECT loyalty.release_award((SELECT min(source_id) FROM loyalty.held_award));
SELECT available + pending AS points FROM loyalty.balance(1);
SELECT name, maximum, used, "left", verdict, blocked FROM loyalty.limit_status(1);

-- points are clipped to what is left, lines and rules add up, the entry says what was wanted
SELECT points, breakdown FROM loyalty.quote(2, 700, occurred_at => '2025-06-01 10:00+00', attributes => '{"card": "c1"}', lines => loyalty.lines('[{"sku": "a", "unit_price": 300}, {"sku": "b", "unit_price": 400}]'));
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference, attributes, lines)
    VALUES (2, '2025-06-01 10:00+00', 700, 'c1', '{"card": "c1"}', loyalty.lines('[{"sku": "a", "unit_price": 300}, {"sku": "b", "unit_price": 400}]'));
SELECT e.points, e.detail FROM loyalty.entry e WHERE e.account_id = 2;
SELECT l.line, l.points FROM loyalty.entry_line l WHERE l.account_id = 2 ORDER BY 1;
SELECT u.limit_id, u.subject, u.granted, u.active FROM loyalty.limit_use u JOIN loyalty.purchase p ON p.purchase_id = u.source_id WHERE p.reference = 'c1' ORDER BY 1;
-- another member with the same card: nothing is left
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference, attributes) VALUES (3, '2025-06-01 10:30+00', 20, 'c2', '{"card": "c1"}');
SELECT available + pending AS points FROM loyalty.balance(3);
-- a correction down gives budget back, a correction up takes what is left
UPDATE loyalty.purchase SET amount = 400, lines = NULL WHERE reference = 'c1';
UPDATE loyalty.purchase SET amount = 150 WHERE reference = 'c2';
SELECT account_id, sum(points) FROM loyalty.entry WHERE account_id IN (2, 3) GROUP BY 1 ORDER BY 1;
-- a void gives all back, once
UPDATE loyalty.purchase SET status = 'void' WHERE reference = 'c1';
UPDATE loyalty.purchase SET amount = 600 WHERE reference = 'c2';
SELECT account_id, sum(points) FROM loyalty.entry WHERE account_id IN (2, 3) GROUP BY 1 ORDER BY 1;
UPDATE loyalty.purchase SET status = 'completed' WHERE reference = 'c1';
SELECT account_id, sum(points) FROM loyalty.entry WHERE account_id IN (2, 3) GROUP BY 1 ORDER BY 1;
SELECT * FROM loyalty.check();
-- a full return gives it back, once; a part does not
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('purchase', 'c2', 100);
SELECT u.limit_id, u.granted, u.active FROM loyalty.limit_use u JOIN loyalty.purchase p ON p.purchase_id = u.source_id WHERE p.reference = 'c2' ORDER BY 1;
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('purchase', 'c2', 500);
SELECT u.limit_id, u.granted, u.active FROM loyalty.limit_use u JOIN loyalty.purchase p ON p.purchase_id = u.source_id WHERE p.reference = 'c2' ORDER BY 1;
SELECT points FROM loyalty.quote(4, 600, occurred_at => '2025-06-01 11:00+00', attributes => '{"card": "c1"}');
UPDATE loyalty.purchase SET channel = 'web' WHERE reference = 'c2';
SELECT u.limit_id, u.granted, u.active FROM loyalty.limit_use u JOIN loyalty.purchase p ON p.purchase_id = u.source_id WHERE p.reference = 'c2' ORDER BY 1;
SELECT * FROM loyalty.check();

-- a purchase that moves to another member moves its use too
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) VALUES (4, '2025-07-01 08:00+00', 10, 'd1');
UPDATE loyalty.purchase SET member_id = 3 WHERE reference = 'd1';
SELECT u.subject, u.active FROM loyalty.limit_use u JOIN loyalty.purchase p ON p.purchase_id = u.source_id WHERE p.reference = 'd1';
UPDATE loyalty.purchase SET member_id = NULL WHERE reference = 'd1';
SELECT u.subject, u.active FROM loyalty.limit_use u JOIN loyalty.purchase p ON p.purchase_id = u.source_id WHERE p.reference = 'd1';
UPDATE loyalty.purchase SET member_id = 4 WHERE reference = 'd1';
SELECT u.subject, u.active FROM loyalty.limit_use u JOIN loyalty.purchase p ON p.purchase_id = u.source_id WHERE p.reference = 'd1';
SELECT * FROM loyalty.check();

-- reject refuses the sale, only where it was chosen
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, store, reference) VALUES (4, '2025-07-02 08:00+00', 60000, 's1', 'e1');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, store, reference) VALUES (3, '2025-07-02 08:10+00', 60000, 's1', 'e2');
SELECT points FROM loyalty.quote(3, 60000, occurred_at => '2025-07-02 08:10+00', store => 's1');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, store, reference) VALUES (3, '2025-07-02 08:10+00', 40000, 's1', 'e2');

-- blocked subjects: the limit's verdict
SELECT loyalty.block_subject(1, 'card', 'c9');
SELECT loyalty.block_subject(1, 'card', 'c9', reason => 'stolen');
SELECT points FROM loyalty.quote(4, 5, occurred_at => '2025-07-03 11:00+00', attributes => '{"card": "c9"}');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference, attributes) VALUES (4, '2025-07-03 11:00+00', 5, 'f1', '{"card": "c9"}');
SELECT verdict, reason, wanted, used, granted, points_wanted, points FROM loyalty.limit_decision ORDER BY decision_id DESC LIMIT 1;
SELECT loyalty.unblock_subject(1, 'card', 'c9'), loyalty.unblock_subject(1, 'card', 'c9');
SELECT points FROM loyalty.quote(4, 5, occurred_at => '2025-07-03 11:00+00', attributes => '{"card": "c9"}');

-- allow writes down and admits
INSERT INTO loyalty.activity (member_id, occurred_at, kind, reference) SELECT 4, '2025-07-04 08:00+00', 'review', 'g' || n FROM generate_series(1, 3) n;
SELECT verdict, used FROM loyalty.limit_decision WHERE verdict = 'allow' ORDER BY decision_id;
SELECT sum(points) FROM loyalty.entry WHERE account_id = 4 AND source_id IN (SELECT activity_id FROM loyalty.activity);

-- what comes later than a window after the newest one cannot be judged: it waits; an event of the future counts now
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) VALUES (4, '2025-06-20 08:00+00', 10, 'h1');
SELECT verdict, reason FROM loyalty.limit_decision ORDER BY decision_id DESC LIMIT 1;

-- many rows: the order of time decides, over all members and chunks
SELECT loyalty.add_limit(1, 'shop', 50, '1 hour', subject => 'purchase.store', verdict => 'clip', active_from => '2025-08-01', buckets => 60);
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, store, reference)
    SELECT 1 + n % 4, timestamptz '2025-08-01 00:00+00' + n * interval '1 day', 1, 'many', 'many' || n FROM generate_series(1, 20) n;
INSERT INTO loyalty.member (program_id, external_id) SELECT 1, 'm' || n FROM generate_series(1, 6000) n;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, store, reference)
    SELECT m.member_id, timestamptz '2025-09-01 00:00+00' + (substr(m.external_id, 2)::int * 7 % 6000) * interval '1 minute', 1, 'one', 'big' || m.external_id FROM loyalty.member m WHERE m.member_id > 4;
SELECT count(*), sum(e.points) FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.store = 'one';
-- what a replay in order of time admits: of every 61 that are a minute apart 50
SELECT count(*) FILTER (WHERE granted = 1) AS granted, count(*) FROM loyalty.limit_use u JOIN loyalty.velocity_limit l USING (limit_id) WHERE l.name = 'shop' AND u.subject = 'one';
SELECT max(n) FROM (SELECT count(*) OVER (ORDER BY p.occurred_at RANGE BETWEEN interval '1 hour' PRECEDING AND CURRENT ROW) AS n
    FROM loyalty.limit_use u JOIN loyalty.velocity_limit l USING (limit_id) JOIN loyalty.purchase p ON p.purchase_id = u.source_id WHERE l.name = 'shop' AND u.subject = 'one' AND u.granted = 1) w;
UPDATE loyalty.purchase SET status = 'void' WHERE store = 'one';
SELECT count(*) FROM loyalty.limit_use WHERE active AND subject = 'one';
SELECT * FROM loyalty.check();

-- limits and decisions are kept
UPDATE loyalty.velocity_limit SET maximum = 9;
DELETE FROM loyalty.limit_decision;
SELECT loyalty.retire_limit(1, 'three a day', 'too strict');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) SELECT 1, now(), 10, 'z' || n FROM generate_series(1, 4) n;
SELECT count(*) FROM loyalty.held_award WHERE source_id IN (SELECT purchase_id FROM loyalty.purchase WHERE reference LIKE 'z%');
-- what a subject used of a limit that is retired stays beside the others
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, store, attributes, reference) VALUES (1, now(), 10, 'ann', '{"card": "ann"}', 'y1');
SELECT l.name, l.retired_at IS NOT NULL AS retired FROM loyalty.limit_state s JOIN loyalty.velocity_limit l USING (limit_id) WHERE s.subject = 'ann' ORDER BY 1;
SELECT count(*) FROM loyalty.limit_subject WHERE subject = 'ann';
SELECT * FROM loyalty.check();
-- a damaged ring is found
BEGIN;
UPDATE loyalty.limit_subject SET rings = '' WHERE subject = 'ann';
SELECT DISTINCT invariant FROM loyalty.check();
ROLLBACK;
BEGIN;
UPDATE loyalty.limit_subject SET rings = '\x0109' WHERE subject = 'ann';
SELECT count(*) FROM loyalty.limit_state WHERE subject = 'ann';
ROLLBACK;
