-- what the catalogue must say of every object of the extension
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
CREATE EXTENSION pgtap;
CREATE ROLE tap_nobody;
CREATE ROLE tap_app;
CREATE ROLE tap_bi;
CREATE ROLE tap_admin;
SELECT loyalty.grant_app('tap_app'), loyalty.grant_bi('tap_bi'), loyalty.grant_admin('tap_admin') \gset ignore_
SELECT plan(24);
CREATE TEMP VIEW member_object AS SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.deptype = 'e' AND e.extname = 'loyalty';
CREATE TEMP VIEW f AS SELECT p.* FROM pg_proc p JOIN member_object m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid;
SELECT is_empty($$SELECT p.oid::regprocedure FROM f p WHERE obj_description(p.oid, 'pg_proc') IS NULL$$, 'every function has a comment');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c JOIN member_object m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass WHERE c.relkind IN ('r', 'v', 'S') AND obj_description(c.oid, 'pg_class') IS NULL AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.objid = c.oid AND i.deptype = 'i')$$, 'every table, view and sequence has a comment');
SELECT is_empty($$SELECT p.oid::regprocedure FROM f p WHERE p.prosecdef AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%')$$, 'every definer pins its search_path');
SELECT is_empty($$SELECT p.oid::regprocedure FROM f p WHERE p.prosecdef AND has_function_privilege('tap_nobody', p.oid, 'EXECUTE')$$, 'nothing with definer rights is for PUBLIC');
SELECT is_empty($$SELECT p.oid::regprocedure FROM f p WHERE has_function_privilege('tap_nobody', p.oid, 'EXECUTE') AND p.provolatile <> 'i'$$, 'PUBLIC may only call immutable functions');
SELECT is_empty($$SELECT p.oid::regprocedure FROM f p WHERE p.prokind = 'f' AND p.provolatile = 'i' AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c') AND p.proparallel <> 's'$$, 'immutable C functions are parallel safe');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c JOIN member_object m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass WHERE c.relkind IN ('r', 'v') AND (has_table_privilege('tap_nobody', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege('tap_nobody', c.oid, 'SELECT, INSERT, UPDATE'))$$, 'PUBLIC reads and writes no table');
SELECT is_empty($$SELECT r, c.oid::regclass FROM pg_class c JOIN member_object m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass, unnest('{tap_app,tap_bi,tap_admin}'::text[]) r WHERE c.relname IN ('entry', 'account', 'returned', 'tier_change', 'held_award', 'rule_version', 'program', 'tier', 'attachment', 'voucher', 'voucher_key', 'reward', 'claim', 'reward_taken', 'stock_share', 'coupon_pool', 'coupon', 'coupon_use', 'coupon_taken', 'stamp_card', 'stamp', 'stamp_sheet', 'challenge', 'challenge_member', 'challenge_item', 'challenge_progress', 'challenge_grant') AND (has_table_privilege(r, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(r, c.oid, 'INSERT, UPDATE'))$$, 'no granted role writes the ledger or the configuration but through functions');
SELECT is_empty($$SELECT r, p.oid::regprocedure FROM f p, unnest('{tap_app,tap_bi,tap_admin}'::text[]) r WHERE p.proname IN ('post', 'post_return', 'post_merge', 'post_reinstatement', 'take_return', 'take_returns', 'restore_tender', 'take_lots', 'earn_lots', 'post_expiry', 'post_review', 'award', 'receive', 'open_accounts', 'attach', 'detach', 'quote_purchase', 'explain_source', 'make_key', 'make_nonce', 'signing_key', 'sign_voucher', 'store_voucher', 'lock_voucher', 'credit_voucher', 'make_claim', 'unmake_claim', 'redeem_claim', 'undo_redeem_claim', 'make_stock', 'take_stock', 'take_waiting', 'give_stock', 'add_stock', 'issue_vouchers', 'issue_coupons', 'give_code', 'make_use', 'make_code', 'post_stamps', 'lock_sheet', 'stamp_purchases', 'stamp_difference', 'stamp_history', 'take_cards', 'give_cards', 'claim_full_cards', 'revoke_full_cards', 'merge_stamps', 'post_grant', 'give_won_reward', 'take_won_reward', 'settle_rewards', 'set_grant', 'settle_challenge', 'count_items', 'count_key', 'lock_tracked', 'track', 'track_new', 'track_all', 'count_last', 'leave_trace', 'merge_challenges', 'challenge_values', 'grant_all', 'grant_app', 'grant_bi', 'grant_admin') AND has_function_privilege(r, p.oid, 'EXECUTE')$$, 'the engine''s own functions are nobody''s');
SELECT is_empty($$SELECT p.oid::regprocedure FROM f p WHERE has_function_privilege('tap_bi', p.oid, 'EXECUTE') AND p.provolatile = 'v'$$, 'BI calls nothing that writes');
SELECT is_empty($$SELECT p.proname FROM f p WHERE has_function_privilege('tap_app', p.oid, 'EXECUTE') AND p.provolatile = 'v' AND p.proname <> ALL ('{enroll,join_challenge,referral_code,invite,refer,redeem,hold,capture,release,undo,transfer,redeem_voucher,voucher_token,claim,undo_claim,issue_coupon,use_coupon,release_coupon}')$$, 'of what writes, an application calls only enroll, join_challenge, what refers friends and what spends points, vouchers and coupons');
SELECT ok(has_column_privilege('tap_app', 'loyalty.purchase', 'amount', 'INSERT') AND NOT has_column_privilege('tap_app', 'loyalty.purchase', 'recorded_at', 'INSERT'), 'an application inserts purchases and cannot say when they were recorded');
SELECT ok(NOT has_table_privilege('tap_app', 'loyalty.purchase', 'SELECT') AND NOT has_table_privilege('tap_app', 'loyalty.member', 'SELECT'), 'an application reads members through functions');
SELECT ok(NOT has_column_privilege('tap_bi', 'loyalty.member', 'external_id', 'SELECT') AND NOT has_column_privilege('tap_bi', 'loyalty.member', 'birthday', 'SELECT') AND NOT has_table_privilege('tap_bi', 'loyalty.member_balance', 'SELECT'), 'BI sees no external ids and birthdays');
SELECT ok(NOT has_column_privilege('tap_bi', 'loyalty.voucher', 'nonce', 'SELECT') AND has_column_privilege('tap_bi', 'loyalty.voucher', 'status', 'SELECT') AND NOT has_any_column_privilege('tap_app', 'loyalty.voucher', 'SELECT'), 'BI sees vouchers and no nonce, an application reads them through functions');
SELECT ok(NOT has_function_privilege('tap_app', 'loyalty.revoke_voucher(bigint, text)', 'EXECUTE') AND NOT has_function_privilege('tap_app', (SELECT oid FROM f WHERE proname = 'make_voucher'), 'EXECUTE') AND has_function_privilege('tap_admin', (SELECT oid FROM f WHERE proname = 'make_voucher'), 'EXECUTE') AND has_function_privilege('tap_admin', 'loyalty.revoke_voucher(bigint, text)', 'EXECUTE'), 'admins make and revoke vouchers, applications do not');
SELECT ok(NOT has_column_privilege('tap_bi', 'loyalty.coupon', 'code', 'SELECT') AND has_column_privilege('tap_bi', 'loyalty.coupon', 'status', 'SELECT') AND NOT has_any_column_privilege('tap_app', 'loyalty.coupon', 'SELECT'), 'BI sees coupons and no codes, an application reads them through functions');
SELECT ok(NOT has_function_privilege('tap_app', 'loyalty.issue_proof(bigint, bigint, interval)', 'EXECUTE') AND NOT has_any_column_privilege('tap_app', 'loyalty.redemption_proof', 'SELECT') AND NOT has_column_privilege('tap_admin', 'loyalty.redemption_proof', 'digest', 'SELECT'), 'a till can ask for no one-time code, and nobody reads their digests');
SELECT ok(NOT has_column_privilege('tap_admin', 'loyalty.member', 'status', 'UPDATE') AND has_function_privilege('tap_admin', 'loyalty.close_member(bigint)', 'EXECUTE'), 'admins close members through the function');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c JOIN member_object m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass, pg_extension e WHERE e.extname = 'loyalty' AND c.relkind = 'r' AND NOT c.oid = ANY (e.extconfig)$$, 'pg_dump carries every table');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c, pg_extension e WHERE c.relnamespace = 'loyalty'::regnamespace AND e.extname = 'loyalty' AND c.relkind = 'S' AND NOT c.oid = ANY (e.extconfig)$$, 'and every sequence');
-- an application awards with INSERT alone, and cannot forge
SELECT loyalty.create_program('P') \gset ignore_
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount') \gset ignore_
SET ROLE tap_app;
SELECT lives_ok($$INSERT INTO loyalty.purchase (member_id, amount) VALUES (loyalty.enroll(1, 'x'), 10)$$, 'an application enrols and awards');
SELECT is(available, 10::bigint, 'and reads the balance') FROM loyalty.balance(1);
SELECT throws_ok($$INSERT INTO loyalty.entry SELECT * FROM loyalty.entry$$, '42501', NULL, 'and writes no entry');
RESET ROLE;
SELECT * FROM finish();
DROP EXTENSION loyalty CASCADE;
DROP OWNED BY tap_app, tap_bi, tap_admin, tap_nobody;
DROP ROLE tap_app, tap_bi, tap_admin, tap_nobody;
