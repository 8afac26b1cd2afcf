-- what every client wants and there is 100 of: pieces of a reward, codes of a pool, uses of a code; and a card that all fill
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Rewards', currency => 'EUR', expiry => 'never');
SELECT loyalty.enroll(1, 'm' || a, '2024-01-01') FROM generate_series(1, :accounts) a;
SELECT loyalty.adjust(a, 1000000, 'to begin with') FROM generate_series(1, :accounts) a;
SELECT loyalty.add_reward(1, 'hundred', 'badge', 5, stock => 100), loyalty.add_reward(1, 'one each', 'badge', 5, member_limit => 1), loyalty.add_reward(1, 'full card', 'badge', NULL);
SELECT loyalty.add_coupon_pool(1, 'codes', 'service', codes_per_member => NULL), loyalty.make_coupons(1, 'codes', 100);
SELECT loyalty.add_coupon_pool(1, 'uses', 'service', uses => 'multi', max_uses => 100), loyalty.import_coupons(1, 'uses', '{USES}');
SELECT loyalty.add_coupon_pool(1, 'single', 'service'), loyalty.import_coupons(1, 'single', '{SINGLE}');
SELECT loyalty.add_stamp_card(1, 'card', 'visits', 7, 'full card');
-- claimed by the purchases themselves, of several members at once
SELECT loyalty.add_coupon_pool(1, 'few codes', 'service'), loyalty.make_coupons(1, 'few codes', 50);
SELECT loyalty.add_reward(1, 'automatic', 'service', NULL, stock => 100), loyalty.add_reward(1, 'automatic code', 'service', NULL, issues => 'coupon', pool => 'few codes');
SELECT loyalty.add_stamp_card(1, 'automatic', 'visits', 5, 'automatic', automatic => true, on_return => 'revoke'), loyalty.add_stamp_card(1, 'automatic code', 'visits', 5, 'automatic code', automatic => true, on_return => 'revoke');
