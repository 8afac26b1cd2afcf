-- What must be equal, a line a member: living free lots, held lots, tally, tier, balance.
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
CREATE SCHEMA model;
CREATE FUNCTION model.state(program integer) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws('|', m.external_id,
               coalesce((SELECT string_agg(format('[%s,%s)=%s', u.available_from, u.expires_on, u.points), ' ' ORDER BY u.available_from, u.expires_on) FROM loyalty.unnest(l.free) u WHERE u.expires_on > d.today), ''),
               coalesce((SELECT string_agg(format('[%s,%s)=%s', u.available_from, u.expires_on, u.points), ' ' ORDER BY u.available_from, u.expires_on) FROM loyalty.unnest(l.held) u), ''),
               coalesce((SELECT string_agg(format('%s: %s %s %s', to_char(x.month, 'YYYY-MM'), (100 * x.spend)::bigint, x.points, x.visits), ', ' ORDER BY x.month)
                         FROM (SELECT (r.a[1] || '-01')::date AS month, r.a[2]::numeric AS spend, r.a[3]::bigint AS points, r.a[4]::bigint AS visits
                               FROM (SELECT ARRAY[y[1], coalesce(substring(y[2] FROM 'spend=([-0-9.]+)'), '0'), coalesce(substring(y[2] FROM 'points=([-0-9]+)'), '0'), coalesce(substring(y[2] FROM 'visits=([-0-9]+)'), '0')] AS a
                                     FROM regexp_matches(a.tally::text, '(\d+-\d+): ([^,}]*)', 'g') y) r) x), ''),
               coalesce(t.name, '-'), b.available, b.pending, b.held, b.debt), E'\n' ORDER BY m.external_id)
    FROM loyalty.member m
         JOIN loyalty.program p USING (program_id)
         JOIN loyalty.account a ON a.account_id = m.member_id
         LEFT JOIN loyalty.tier t USING (tier_id)
         CROSS JOIN LATERAL (SELECT (now() AT TIME ZONE p.time_zone)::date AS today) d
         CROSS JOIN LATERAL loyalty.lots_at(p.program_id, a.lots, a.holds, a.last_event_at, now()) l
         CROSS JOIN LATERAL loyalty.balance(m.member_id) b
    WHERE m.program_id = program
$$;
