-- birthdays and anniversaries: once a year, where the member is, and for nobody who entered today
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
    message := regexp_replace(message, '(programme) \d+', '\1 N', 'g');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Occasions' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE TEMP VIEW given AS SELECT m.external_id AS who, v.kind, v.occurred_at, v.subject AS year, v.value, a.verdict, a.reason, (SELECT sum(e.points) FROM loyalty.entry e WHERE e.source_id = v.activity_id) AS points
    FROM loyalty.activity v JOIN loyalty.member m USING (member_id) LEFT JOIN loyalty.activity_admission a USING (activity_id) WHERE m.program_id = pg_temp.p() AND v.kind IN ('birthday', 'anniversary') ORDER BY v.occurred_at, v.activity_id;
SELECT loyalty.create_program('Occasions', currency => 'EUR', time_zone => 'Europe/Paris', expiry => 'never') > 0 AS made;
SELECT loyalty.add_rule(pg_temp.p(), 'birthday', 'activity', 'base', '100', $$activity.kind = 'birthday'$$) > 0 AS birthday, loyalty.add_rule(pg_temp.p(), 'years', 'activity', 'base', '10 * activity.value', $$activity.kind = 'anniversary'$$) > 0 AS years,
    loyalty.add_rule(pg_temp.p(), 'on the day', 'activity', 'bonus', '5', 'member.is_birthday') > 0 AS on_the_day;
-- what an occasion may be
SELECT n, r.state, r.message FROM (VALUES (1, $$pg_temp.p(), 'wedding'$$), (2, $$pg_temp.p(), 'birthday', 61$$), (3, $$pg_temp.p(), 'birthday', held_days => -1$$), (4, $$pg_temp.p(), 'birthday', catch_up_days => 181$$), (5, $$pg_temp.p(), 'birthday', leap_day => '02-29'$$),
    (6, $$pg_temp.p(), NULL$$), (7, $$pg_temp.p(), 'birthday', NULL$$), (8, $$0, 'birthday'$$)) c (n, call), pg_temp.refused('SELECT loyalty.set_occasion(' || call || ')') r ORDER BY n;
SELECT loyalty.enroll(pg_temp.p(), 'ann', '2020-05-05 10:00+00', birthday => '1990-03-10') > 0 AS ann, loyalty.enroll(pg_temp.p(), 'leap', '2020-02-29 12:00+00', birthday => '2000-02-29') > 0 AS leap,
    loyalty.enroll(pg_temp.p(), 'far', '2021-03-01 12:00+00', birthday => '1980-03-10', time_zone => 'Pacific/Kiritimati') > 0 AS far, loyalty.enroll(pg_temp.p(), 'late', '2023-02-20', birthday => '1985-03-10') > 0 AS late, loyalty.enroll(pg_temp.p(), 'none', '2023-02-20') > 0 AS none;
SELECT n, r.* FROM (VALUES (1, 'Mars/Base'), (2, 'UTC+3'), (3, ''), (4, '../passwd')) z (n, zone), pg_temp.refused(format('SELECT loyalty.enroll(pg_temp.p(), ''z'', time_zone => %L)', zone)) r ORDER BY n;
-- since when a date is known is not for whoever enters it
SELECT external_id, birthday_since > now() - interval '1 minute' AS now FROM loyalty.member WHERE program_id = pg_temp.p() ORDER BY 1;
UPDATE loyalty.member SET birthday_since = '2022-01-01' WHERE program_id = pg_temp.p() AND external_id IN ('ann', 'leap', 'far');
UPDATE loyalty.member SET birthday_since = '2023-02-10 12:00+00' WHERE member_id = pg_temp.m('late');
UPDATE loyalty.member SET birthday_since = '2000-01-01' WHERE member_id = pg_temp.m('none');
SELECT external_id, birthday_since FROM loyalty.member WHERE program_id = pg_temp.p() ORDER BY 1;
-- no policy: nothing
CALL loyalty.birthdays('2023-03-10');
SELECT * FROM pg_temp.given;
SELECT loyalty.set_occasion(pg_temp.p(), 'birthday');
CALL loyalty.birthdays('2023-02-27');
CALL loyalty.birthdays('2023-02-28');
SELECT * FROM pg_temp.given;
-- the day begins where the member is; late's date is not known for long enough
CALL loyalty.birthdays('2023-03-10');
CALL loyalty.birthdays('2023-03-10', batch => 1);
SELECT * FROM pg_temp.given WHERE occurred_at > '2023-03-01';
-- a changed birthday pays no second time in the year, and not before it is known for long enough
UPDATE loyalty.member SET birthday = '1990-06-10' WHERE member_id = pg_temp.m('ann');
SELECT birthday_since > now() - interval '1 minute' AS counted_anew FROM loyalty.member WHERE member_id = pg_temp.m('ann');
UPDATE loyalty.member SET birthday_since = '2023-03-15' WHERE member_id = pg_temp.m('ann');
CALL loyalty.birthdays('2023-06-10');
SELECT count(*) FROM pg_temp.given WHERE occurred_at > '2023-03-11';
-- the same date again, or another column, counts nothing anew
UPDATE loyalty.member SET birthday = '1990-06-10', attributes = '{}' WHERE member_id = pg_temp.m('ann');
SELECT birthday_since FROM loyalty.member WHERE member_id = pg_temp.m('ann');
-- missed days are made up for, but not older ones; the time is that of the day
CALL loyalty.birthdays('2024-03-07');
SELECT who, occurred_at, year, points FROM pg_temp.given WHERE year = '2024';
CALL loyalty.birthdays('2024-03-17');
SELECT who, occurred_at, year, points FROM pg_temp.given WHERE year = '2024';
CALL loyalty.birthdays('2024-06-18');
SELECT who, occurred_at, year, points FROM pg_temp.given WHERE year = '2024';
-- days before, over the end of the year: the year is the birthday's
SELECT loyalty.enroll(pg_temp.p(), 'jan', '2020-01-01', birthday => '1990-01-03') > 0 AS jan;
UPDATE loyalty.member SET birthday_since = '2022-01-01' WHERE member_id = pg_temp.m('jan');
SELECT loyalty.set_occasion(pg_temp.p(), 'birthday', days_before => 7, leap_day => '03-01');
CALL loyalty.birthdays('2024-12-26');
CALL loyalty.birthdays('2024-12-27');
CALL loyalty.birthdays('2025-01-03');
CALL loyalty.birthdays('2025-02-22');
SELECT who, occurred_at, year, points FROM pg_temp.given WHERE occurred_at > '2024-12-01';
-- anniversaries: from the second year on, with the number of years
SELECT loyalty.set_occasion(pg_temp.p(), 'anniversary', held_days => 0, catch_up_days => 0);
SELECT loyalty.enroll(pg_temp.p(), 'new', '2024-05-05 12:00+00') > 0 AS new;
UPDATE loyalty.member SET created_at = '2020-01-01' WHERE program_id = pg_temp.p();
CALL loyalty.birthdays('2024-05-05');
CALL loyalty.birthdays('2025-05-05');
CALL loyalty.birthdays('2025-05-06');
SELECT * FROM pg_temp.given WHERE kind = 'anniversary';
-- who came lately, and says that it was long ago, waits as well
SELECT loyalty.set_occasion(pg_temp.p(), 'anniversary', catch_up_days => 0);
SELECT loyalty.enroll(pg_temp.p(), 'old friend', '2010-05-07 12:00+00') > 0 AS old_friend;
UPDATE loyalty.member SET created_at = '2025-04-20' WHERE member_id = pg_temp.m('old friend');
CALL loyalty.birthdays('2025-05-07');
SELECT count(*) FROM pg_temp.given WHERE who = 'old friend';
-- closed members have none; those merged are one
SELECT loyalty.enroll(pg_temp.p(), 'twin', '2020-01-01', birthday => '1990-08-01') > 0 AS twin, loyalty.enroll(pg_temp.p(), 'other twin', '2020-01-01', birthday => '1990-08-05') > 0 AS other, loyalty.enroll(pg_temp.p(), 'gone', '2020-01-01', birthday => '1990-08-01') > 0 AS gone;
UPDATE loyalty.member SET birthday_since = '2022-01-01' WHERE program_id = pg_temp.p() AND extract(month FROM birthday) = 8;
SELECT loyalty.close_member(pg_temp.m('gone')), loyalty.set_occasion(pg_temp.p(), 'birthday');
CALL loyalty.birthdays('2025-08-02');
SELECT loyalty.merge_members(pg_temp.m('twin'), pg_temp.m('other twin'), 'the same') IS NOT NULL AS merged;
CALL loyalty.birthdays('2025-08-05');
SELECT who, occurred_at, verdict, reason FROM pg_temp.given WHERE year = '2025' AND kind = 'birthday' AND occurred_at > '2025-07-01';
-- nobody else records an occasion, and nobody takes a source of the engine's
INSERT INTO loyalty.activity (member_id, occurred_at, kind, subject) VALUES (pg_temp.m('far'), '2025-03-10', 'birthday', '2025');
SELECT who, verdict, reason, points FROM pg_temp.given WHERE who = 'far' AND occurred_at > '2025-01-01' AND kind = 'birthday';
SELECT r.state, r.message FROM unnest('{birthday,anniversary}'::text[]) k, pg_temp.refused(format('SELECT loyalty.set_activity_policy(pg_temp.p(), %L)', k)) r;
CREATE ROLE loyalty_test_till;
SELECT loyalty.grant_app('loyalty_test_till');
SET ROLE loyalty_test_till;
SELECT r.* FROM unnest('{loyalty:birthday,loyalty:,loyaltyx,loyalty:complete}'::text[]) s, pg_temp.refused(format('INSERT INTO loyalty.activity (member_id, occurred_at, kind, subject, source, reference) VALUES (pg_temp.m(''far''), ''2025-03-11'', ''birthday'', ''2025'', %L, ''x'')', s)) r;
SELECT r.* FROM pg_temp.refused('INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (NULL, 1, ''loyalty:x'', ''x'')') r;
SELECT state FROM pg_temp.refused('CALL loyalty.birthdays()');
RESET ROLE;
DROP OWNED BY loyalty_test_till;
DROP ROLE loyalty_test_till;
-- one whom a rule refuses keeps nobody else from theirs
SELECT loyalty.enroll(pg_temp.p(), name, '2020-01-01', birthday => '1990-09-09', attributes => jsonb_build_object('n', n)) > 0 AS made FROM (VALUES ('b1', 1), ('b2', 0), ('b3', 2)) b (name, n);
UPDATE loyalty.member SET birthday_since = '2022-01-01' WHERE program_id = pg_temp.p() AND extract(month FROM birthday) = 9;
SELECT loyalty.add_rule(pg_temp.p(), 'share', 'activity', 'bonus', $$6 / (member.attributes ->> 'n')::integer$$, $$member.attributes ->> 'n' IS NOT NULL$$) > 0 AS made;
\set VERBOSITY sqlstate
CALL loyalty.birthdays('2025-09-09');
\set VERBOSITY default
SELECT who, points FROM pg_temp.given WHERE occurred_at > '2025-09-01';
UPDATE loyalty.member SET attributes = '{"n": 3}' WHERE member_id = pg_temp.m('b2');
CALL loyalty.birthdays('2025-09-10');
SELECT who, points FROM pg_temp.given WHERE occurred_at > '2025-09-01';
-- why, and on which terms
SELECT e.rule, e.fired, e.points, e.why FROM loyalty.activity v CROSS JOIN LATERAL loyalty.explain(v.activity_id) e WHERE v.member_id = pg_temp.m('b1') AND v.kind = 'birthday' ORDER BY e.rule NULLS LAST;
SELECT kind, rule, points, terms FROM loyalty.activity_prices WHERE program_id = pg_temp.p() ORDER BY kind, rule;
-- days to come, and what is no batch
\set VERBOSITY sqlstate
CALL loyalty.birthdays('2999-01-01');
CALL loyalty.birthdays(batch => 0);
\set VERBOSITY default
-- today, wherever that is
SELECT loyalty.set_occasion(pg_temp.p(), 'birthday', held_days => 0, catch_up_days => 0), loyalty.drop_activity_policy(pg_temp.p(), 'anniversary');
SELECT count(loyalty.enroll(pg_temp.p(), 'now ' || zone, birthday => ((now() AT TIME ZONE zone) - interval '28 years')::date, time_zone => zone)) FROM unnest('{Pacific/Kiritimati,Pacific/Pago_Pago,Europe/Paris}'::text[]) zone;
CALL loyalty.birthdays();
CALL loyalty.birthdays();
SELECT who, count(*) FROM pg_temp.given WHERE who LIKE 'now %' GROUP BY 1 ORDER BY 1;
SELECT * FROM loyalty.check();
