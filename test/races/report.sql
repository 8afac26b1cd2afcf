-- what the load came to
SELECT format('%s statements, %s keys, %s effects; %s refused, %s to be tried again, %s without an answer', (SELECT count(*) FROM races.answer), (SELECT count(DISTINCT (kind, account, key)) FROM races.issued),
    (SELECT count(*) FROM loyalty.entry WHERE key IS NOT NULL AND key !~ '^(loyalty:|init)') + (SELECT count(*) FROM loyalty.purchase) + (SELECT count(*) FROM loyalty.purchase_return) + (SELECT count(*) FROM loyalty.open_hold),
    count(*) FILTER (WHERE state LIKE 'LY%'), count(*) FILTER (WHERE state = '40001'), (SELECT count(*) FROM races.lost)) FROM races.answer;
SELECT format('%-9s %8s done %8s refused: %s', kind, sum(n) FILTER (WHERE state = '00000'), coalesce(sum(n) FILTER (WHERE state <> '00000'), 0), string_agg(state || ' ' || n, ', ' ORDER BY n DESC) FILTER (WHERE state <> '00000'))
    FROM (SELECT i.kind, a.state, count(*) AS n FROM races.answer a JOIN races.issued i USING (client, n) GROUP BY 1, 2) x GROUP BY kind ORDER BY kind;
