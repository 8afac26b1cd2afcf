-- a referral programme: every tenth member came by the code of another; the first purchase of each that is enough rewards both
SET client_min_messages = warning;
SELECT loyalty.set_referral(1, 500, 300, min_amount => 5, qualify_days => 3650, hold_days => 14, cap => 100, void_on => '{phone}', review_on => '{device}') \gset b_
SELECT count(loyalty.enroll(1, 'friend ' || i, referral_code => loyalty.referral_code(i))) FROM generate_series(1, :guarded / 10) i \gset b_
VACUUM ANALYZE;
