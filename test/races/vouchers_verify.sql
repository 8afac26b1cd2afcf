-- Every row that this prints is something that went wrong.
SELECT 'tries', count(*) FROM storm.tried HAVING count(*) <> :clients * :vouchers;
SELECT 'not one winner', v.n, count(t.n) FROM storm.voucher v LEFT JOIN storm.tried t ON t.n = v.n AND t.answer = 'won ' || v.voucher_id GROUP BY v.n HAVING count(t.n) <> 1;
SELECT 'refused with ' || answer, count(*) FROM storm.tried WHERE answer !~ '^won ' AND answer <> 'LY612' GROUP BY answer;
SELECT 'won what is not the winner''s', t.n, t.client FROM storm.tried t JOIN storm.voucher s USING (n) JOIN loyalty.voucher v USING (voucher_id)
    WHERE t.answer ~ '^won ' AND (v.status <> 'redeemed' OR v.redeem_key <> format('%s of client %s', t.n, t.client));
SELECT 'deadlocks', deadlocks FROM pg_stat_database WHERE datname = current_database() AND deadlocks > 0;
SELECT 'check()', * FROM loyalty.check();
