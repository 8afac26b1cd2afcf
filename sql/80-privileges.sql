/*
 * privileges: three kinds of users.  Nothing that writes is for PUBLIC.
 */
CREATE FUNCTION loyalty.grant_all(role regrole, statements text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
        RAISE EXCEPTION 'role % does not exist', coalesce(role::text, 'NULL') USING ERRCODE = '42704';
    END IF;
    FOREACH statement IN ARRAY statements LOOP
        EXECUTE format('GRANT %s TO %s', statement, role);
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.grant_all(regrole, text[]) IS 'Grants a list of things to a role, with the caller''s own right to do so';
REVOKE ALL ON FUNCTION loyalty.grant_all(regrole, text[]) FROM PUBLIC;

CREATE FUNCTION loyalty.grant_app(role regrole) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT loyalty.grant_all(role, ARRAY[
        'USAGE ON SCHEMA loyalty',
        'INSERT (member_id, occurred_at, store, channel, currency, amount, tax, shipping, discount, paid_with_points, paid_with_gift_card, redemption_id, lines, attributes, status, source, reference) ON loyalty.purchase',
        'INSERT (purchase_id, purchase_source, purchase_reference, member_id, occurred_at, amount, lines, reason, attributes, source, reference) ON loyalty.purchase_return',
        'SELECT (return_id, source, reference) ON loyalty.purchase_return',
        'SELECT ON loyalty.returned',
        'INSERT (member_id, occurred_at, kind, value, subject, attributes, status, source, reference) ON loyalty.activity',
        'SELECT (purchase_id, source, reference) ON loyalty.purchase',
        'SELECT (activity_id, source, reference) ON loyalty.activity',
        'USAGE ON SEQUENCE loyalty.transaction_id_seq',
        'EXECUTE ON FUNCTION loyalty.enroll',
        'EXECUTE ON FUNCTION loyalty.balance(bigint, date)',
        'EXECUTE ON FUNCTION loyalty.quote',
        'EXECUTE ON FUNCTION loyalty.explain(bigint)',
        'EXECUTE ON FUNCTION loyalty.statement(bigint, timestamptz, timestamptz, integer)',
        'EXECUTE ON FUNCTION loyalty.redeem, loyalty.hold, loyalty.capture, loyalty.release, loyalty.undo, loyalty.transfer',
        'EXECUTE ON FUNCTION loyalty.expiry_schedule',
        'EXECUTE ON FUNCTION loyalty.wallet(bigint, text)',
        'EXECUTE ON FUNCTION loyalty.tier_progress(bigint)',
        'EXECUTE ON FUNCTION loyalty.cabinet(bigint)',
        'EXECUTE ON FUNCTION loyalty.challenges(bigint, timestamptz), loyalty.join_challenge(bigint, integer)',
        'EXECUTE ON FUNCTION loyalty.referral_code(bigint), loyalty.invite(bigint, text, text), loyalty.refer(bigint, text, text, timestamptz), loyalty.referrals(bigint)',
        'EXECUTE ON FUNCTION loyalty.vouchers(bigint)',
        'EXECUTE ON FUNCTION loyalty.rewards_for(bigint), loyalty.claim, loyalty.undo_claim(bigint, text, text), loyalty.distinctions(bigint)',
        'EXECUTE ON FUNCTION loyalty.coupons(bigint), loyalty.issue_coupon(bigint, text, text), loyalty.use_coupon, loyalty.release_coupon(bigint, text, text), loyalty.is_code(text)',
        'EXECUTE ON FUNCTION loyalty.stamp_cards(bigint)',
        'EXECUTE ON FUNCTION loyalty.limit_status(bigint)',
        'EXECUTE ON FUNCTION loyalty.read_token(text), loyalty.read_token(text, bytea), loyalty.verify_token(text, bytea), loyalty.member_tag(bigint, bytea)',
        'EXECUTE ON FUNCTION loyalty.redeem_voucher(text, text, bigint, text, bigint)',
        'EXECUTE ON FUNCTION loyalty.set_person(bigint, jsonb), loyalty.set_contact(bigint, text, text), loyalty.remove_contact(bigint, text, text), loyalty.find_member(integer, text, text)',
        'EXECUTE ON FUNCTION loyalty.suggest(bigint, text[], integer, integer, text, text, boolean), loyalty.accept_suggestion(bigint, text, numeric, numeric)',
        'EXECUTE ON FUNCTION loyalty.give_consent(bigint, text, text, text, timestamptz), loyalty.withdraw_consent(bigint, text, text, text, timestamptz), loyalty.has_consent(bigint, text, text)',
        'EXECUTE ON FUNCTION loyalty.describe(integer, text)'])
$$;
COMMENT ON FUNCTION loyalty.grant_app(regrole) IS 'Lets an application insert transactions, read members'' points, and redeem vouchers, claim rewards and use coupons through functions';
REVOKE ALL ON FUNCTION loyalty.grant_app(regrole) FROM PUBLIC;

CREATE FUNCTION loyalty.grant_bi(role regrole) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT loyalty.grant_all(role, ARRAY[
        'USAGE ON SCHEMA loyalty',
        'SELECT ON loyalty.program, loyalty.tier, loyalty.product, loyalty.rule, loyalty.rule_version, loyalty.rule_current',
        'SELECT (return_id, purchase_id, purchase_source, purchase_reference, member_id, occurred_at, amount, lines, reason, source, reference, recorded_at) ON loyalty.purchase_return',
        'SELECT ON loyalty.returned',
        'SELECT (purchase_id, member_id, occurred_at, store, channel, currency, amount, tax, shipping, discount, paid_with_points, paid_with_gift_card, redemption_id, lines, status, source, reference, recorded_at) ON loyalty.purchase',
        'SELECT (activity_id, member_id, occurred_at, kind, value, subject, status, source, reference, recorded_at) ON loyalty.activity',
        'SELECT ON loyalty.purchase_line, loyalty.exchange_rate',
        'SELECT ON loyalty.entry, loyalty.account, loyalty.tier_change, loyalty.entry_rule, loyalty.entry_line, loyalty.attachment',
        'SELECT ON loyalty.household, loyalty.household_member, loyalty.wallet_balance',
        'SELECT ON loyalty.points_flow, loyalty.liability, loyalty.partner_liability, loyalty.breakage',
        'SELECT ON loyalty.tier_history, loyalty.points_outstanding, loyalty.review_ageing, loyalty.activity_policy, loyalty.activity_admission, loyalty.activity_quota, loyalty.activity_refusal, loyalty.activity_prices, loyalty.cashier, loyalty.cashier_activity, loyalty.unusual_cashiers, loyalty.redemption, loyalty.open_hold',
        'SELECT (source_id, member_id, held_at, age, reason) ON loyalty.held_award_open',
        'SELECT (program_id, program, source_id, transaction, member_id, occurred_at, amount, currency, store, activity, subject, value, source, reference, status, reason, failed, held_at, released_at, released_by, release_reason, refused_at, refused_by, refuse_reason, decision) ON loyalty.review_award',
        'SELECT (program_id, program, source_id, transaction, member_id, occurred_at, amount, currency, store, activity, subject, value, source, reference, status, reason, failed, held_at, age, days, band) ON loyalty.review_queue',
        'SELECT (member_id, program_id, joined_at, status, staff) ON loyalty.member',
        'SELECT (voucher_id, program_id, member_id, kind, value, currency, sku, terms, issued_at, issued_by, valid_from, valid_until, key, source_id, key_id, status, redeemed_at, redeemed_by, redeem_key, redeem_member_id, redeem_store, redeem_purchase_id, revoked_at, revoked_by, reason) ON loyalty.voucher',
        'SELECT ON loyalty.voucher_key, loyalty.checkpoint, loyalty.consent_change, loyalty.consent',
        'SELECT (proof_id, member_id, points, issued_at, issued_by, valid_until, withdrawn_at, used_at, source_id) ON loyalty.redemption_proof',
        'SELECT ON loyalty.reward, loyalty.claim, loyalty.reward_taken, loyalty.stock_share',
        'SELECT ON loyalty.coupon_pool, loyalty.coupon_use, loyalty.coupon_taken',
        'SELECT (coupon_id, program_id, pool_id, status, member_id, key, issued_at, issued_by, valid_until, voided_at, reason) ON loyalty.coupon',
        'SELECT ON loyalty.stamp_card, loyalty.stamp, loyalty.stamp_sheet',
        'SELECT ON loyalty.velocity_limit',
        'SELECT ON loyalty.cap_use, loyalty.cap_state, loyalty.rule_budget, loyalty.budget_status',
        'SELECT (decision_id, source_id, limit_id, decided_at, verdict, reason, wanted, used, granted, points_wanted, points) ON loyalty.limit_decision',
        'SELECT ON loyalty.challenge, loyalty.challenge_member, loyalty.challenge_item, loyalty.challenge_progress, loyalty.challenge_grant, loyalty.challenge_result, loyalty.member_badge',
        'SELECT ON loyalty.referral_policy, loyalty.referral_change, loyalty.referral_review, loyalty.referral_funnel, loyalty.referral_tree',
        'SELECT (referral_id, program_id, policy_id, referrer_id, friend_id, channel, state, reason, invited_at, registered_at, purchase_id, qualified_at, rewarded_at, void_at) ON loyalty.referral',
        'SELECT ON loyalty.bi_activity, loyalty.bi_affinity, loyalty.bi_before_after, loyalty.bi_brand, loyalty.bi_breakage, loyalty.bi_cadence, loyalty.bi_category, loyalty.bi_category_cadence, loyalty.bi_category_month, loyalty.bi_challenge, loyalty.bi_channel, loyalty.bi_churn, loyalty.bi_churn_reason, loyalty.bi_cohort, loyalty.bi_copurchase, loyalty.bi_coupon, loyalty.bi_day, loyalty.bi_freshness, loyalty.bi_frequency, loyalty.bi_ladder, loyalty.bi_liability, loyalty.bi_limit, loyalty.bi_member, loyalty.bi_membership, loyalty.bi_month, loyalty.bi_pareto, loyalty.bi_partner_liability, loyalty.bi_points_flow, loyalty.bi_program, loyalty.bi_redemption, loyalty.bi_referral, loyalty.bi_return, loyalty.bi_review, loyalty.bi_reward, loyalty.bi_rfm, loyalty.bi_rfm_cell, loyalty.bi_rule, loyalty.bi_rule_month, loyalty.bi_segment, loyalty.bi_staff, loyalty.bi_suggestion, loyalty.bi_stamp_card, loyalty.bi_store, loyalty.bi_tier, loyalty.bi_tier_movement, loyalty.bi_value, loyalty.bi_value_model, loyalty.bi_voucher',
        'EXECUTE ON FUNCTION loyalty.breakdown_rules(bytea), loyalty.breakdown_lines(bytea), loyalty.lots_at, loyalty.age_band(interval), loyalty.policy_text(loyalty.activity_policy)',
        'EXECUTE ON FUNCTION loyalty.describe(integer, text)'])
$$;
COMMENT ON FUNCTION loyalty.grant_bi(regrole) IS 'Lets a BI tool read the books, without external ids and birthdays, without what is personal by its nature or may be: attributes of members and transactions, keys of invitations, texts of errors';
REVOKE ALL ON FUNCTION loyalty.grant_bi(regrole) FROM PUBLIC;

CREATE FUNCTION loyalty.grant_support(role regrole) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT loyalty.grant_all(role, ARRAY[
        'USAGE ON SCHEMA loyalty',
        'EXECUTE ON FUNCTION loyalty.person(bigint)',
        'EXECUTE ON FUNCTION loyalty.set_person(bigint, jsonb), loyalty.set_contact(bigint, text, text), loyalty.remove_contact(bigint, text, text), loyalty.find_member(integer, text, text)',
        'EXECUTE ON FUNCTION loyalty.give_consent(bigint, text, text, text, timestamptz), loyalty.withdraw_consent(bigint, text, text, text, timestamptz), loyalty.has_consent(bigint, text, text)'])
$$;
COMMENT ON FUNCTION loyalty.grant_support(regrole) IS 'Lets a role read and keep personal data, and nothing else';
REVOKE ALL ON FUNCTION loyalty.grant_support(regrole) FROM PUBLIC;

CREATE FUNCTION loyalty.grant_admin(role regrole) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT loyalty.grant_app(role);
    SELECT loyalty.grant_bi(role);
    SELECT loyalty.grant_support(role);
    SELECT loyalty.grant_all(role, ARRAY[
        'SELECT ON loyalty.member, loyalty.member_balance, loyalty.held_award, loyalty.held_award_open, loyalty.review_award, loyalty.review_queue',
        'SELECT ON loyalty.purchase, loyalty.activity, loyalty.purchase_return, loyalty.referral',
        'EXECUTE ON FUNCTION loyalty.lots_at',
        'INSERT (program_id, external_id, joined_at, status, birthday, staff, attributes, time_zone) ON loyalty.member',
        'UPDATE (external_id, joined_at, birthday, staff, attributes, time_zone) ON loyalty.member',
        'UPDATE (member_id, occurred_at, store, channel, currency, amount, tax, shipping, discount, paid_with_points, paid_with_gift_card, redemption_id, lines, attributes, status) ON loyalty.purchase',
        'UPDATE (member_id, occurred_at, kind, value, subject, attributes, status) ON loyalty.activity',
        'USAGE ON SEQUENCE loyalty.member_id_seq',
        'INSERT, UPDATE, DELETE ON loyalty.product, loyalty.exchange_rate',
        'EXECUTE ON FUNCTION loyalty.set_analysis, loyalty.set_copurchase',
        'INSERT, UPDATE, DELETE, SELECT ON loyalty.out_of_stock',
        'SELECT ON loyalty.copurchase_setting, loyalty.copurchase_policy, loyalty.copurchase_run, loyalty.suggestion, loyalty.suggestion_accepted',
        'SELECT ON loyalty.analysis_setting, loyalty.analysis_policy, loyalty.analysis_run',
        'EXECUTE ON FUNCTION loyalty.create_program, loyalty.add_wallet, loyalty.change_program, loyalty.add_tier, loyalty.add_rule, loyalty.replace_rule, loyalty.retire_rule, loyalty.set_budget',
        'EXECUTE ON FUNCTION loyalty.lint_rules(integer), loyalty.simulate(integer, jsonb, timestamptz, timestamptz, boolean)',
        'EXECUTE ON FUNCTION loyalty.adjust(bigint, bigint, text, text, timestamptz, date)',
        'EXECUTE ON FUNCTION loyalty.open_balance(bigint, bigint, text, text, timestamptz, date, numeric, bigint, date)',
        'EXECUTE ON FUNCTION loyalty.create_household, loyalty.join_household, loyalty.leave_household, loyalty.block_in_household',
        'EXECUTE ON FUNCTION loyalty.merge_members, loyalty.write_off, loyalty.reinstate, loyalty.release_pending, loyalty.notices_due',
        'EXECUTE ON FUNCTION loyalty.import_entry, loyalty.set_tier(bigint, text, date, text)',
        'EXECUTE ON FUNCTION loyalty.set_member_status(bigint, text), loyalty.close_member(bigint)',
        'EXECUTE ON FUNCTION loyalty.make_voucher, loyalty.voucher_token(bigint), loyalty.revoke_voucher(bigint, text), loyalty.voucher_keys()',
        'SELECT ON loyalty.cashier_limit, loyalty.cashier_day, loyalty.audit, loyalty.erasure',
        'EXECUTE ON FUNCTION loyalty.erase_member(bigint, text)',
        'EXECUTE ON FUNCTION loyalty.issue_proof(bigint, bigint, interval), loyalty.set_cashier_limit(integer, text, bigint, integer)',
        'EXECUTE ON FUNCTION loyalty.add_reward, loyalty.retire_reward(integer, text, text), loyalty.restock_reward(integer, text, bigint)',
        'EXECUTE ON FUNCTION loyalty.add_coupon_pool, loyalty.retire_coupon_pool(integer, text, text), loyalty.void_coupon(integer, text, text)',
        'EXECUTE ON FUNCTION loyalty.import_coupons(integer, text, text[]), loyalty.make_coupons(integer, text, integer, integer)',
        'EXECUTE ON FUNCTION loyalty.add_stamp_card, loyalty.retire_stamp_card(integer, text, text)',
        'SELECT ON loyalty.limit_state, loyalty.limit_use, loyalty.limit_hold, loyalty.limit_decision, loyalty.blocked_subject',
        'EXECUTE ON FUNCTION loyalty.limit_rings(bytea), loyalty.limit_uses(bytea)',
        'EXECUTE ON FUNCTION loyalty.add_limit, loyalty.retire_limit(integer, text, text), loyalty.block_subject, loyalty.unblock_subject(integer, text, text)',
        'EXECUTE ON FUNCTION loyalty.add_challenge, loyalty.retire_challenge',
        'EXECUTE ON FUNCTION loyalty.set_activity_policy, loyalty.drop_activity_policy(integer, text), loyalty.set_occasion, loyalty.set_cashier(integer, text, bigint)',
        'EXECUTE ON FUNCTION loyalty.approve(bigint, text), loyalty.approve(bigint[], text), loyalty.refuse(bigint, text), loyalty.refuse(bigint[], text)',
        'EXECUTE ON FUNCTION loyalty.set_referral, loyalty.retire_referral(integer, text), loyalty.approve_referral(bigint, text), loyalty.refuse_referral(bigint, text)',
        'EXECUTE ON FUNCTION loyalty.release_award(bigint), loyalty.check(), loyalty.verify, loyalty.verify_sealed(jsonb)',
        'EXECUTE ON FUNCTION loyalty.export_checkpoint(bigint), loyalty.inclusion_proof, loyalty.balance_proof, loyalty.consistency_proof'])
$$;
COMMENT ON FUNCTION loyalty.grant_admin(regrole) IS 'Lets a role run the programme: rules, tiers, adjustments, imports, releases, vouchers, rewards, coupons, stamp cards, challenges, referrals. Jobs, attach and the engine''s own functions stay with the owner of the extension';
REVOKE ALL ON FUNCTION loyalty.grant_admin(regrole) FROM PUBLIC;

/* What pg_dump must carry: all of it is the user's data. */
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'program', 'tier', 'product', 'rule', 'rule_version', 'exchange_rate', 'member', 'account',
        'household_member', 'household_id_seq', 'tier_change', 'purchase', 'activity', 'purchase_return', 'returned', 'entry', 'held_award', 'activity_policy', 'activity_admission', 'activity_quota', 'cashier', 'attachment', 'attachment_attachment_id_seq',
        'cap_state', 'cap_use', 'rule_budget', 'velocity_limit', 'velocity_limit_limit_id_seq', 'limit_subject', 'limit_used', 'limit_hold', 'limit_decision', 'limit_decision_decision_id_seq', 'blocked_subject',
        'challenge', 'challenge_challenge_id_seq', 'challenge_member', 'challenge_item', 'challenge_progress', 'challenge_grant',
        'referral_policy', 'referral_policy_policy_id_seq', 'referral_code', 'referral', 'referral_change', 'referral_merge',
        'person', 'identity', 'erasure', 'audit', 'audit_id_seq', 'consent_change', 'consent_number_seq',
        'checkpoint', 'checkpoint_leaf', 'checkpoint_node', 'voucher', 'voucher_key', 'voucher_id_seq', 'redemption_proof', 'redemption_proof_proof_id_seq', 'cashier_limit', 'cashier_day',
        'stock_share', 'reward', 'claim', 'reward_taken', 'coupon_pool', 'coupon', 'coupon_use', 'coupon_taken', 'stamp_card', 'stamp', 'stamp_sheet',
        'stock_id_seq', 'reward_reward_id_seq', 'claim_id_seq', 'coupon_pool_pool_id_seq', 'coupon_id_seq', 'stamp_card_card_id_seq', 'stamp_id_seq',
        'analysis_setting', 'copurchase_setting', 'out_of_stock', 'suggestion', 'suggestion_id_seq', 'suggestion_accepted',
        'program_program_id_seq', 'tier_tier_id_seq', 'rule_rule_id_seq',
        'rule_version_rule_version_id_seq', 'member_id_seq', 'transaction_id_seq', 'tier_change_number_seq']
    LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('loyalty.' || name)::pg_catalog.regclass, '');
    END LOOP;
    -- made again from the purchases: another cluster counts its transactions differently, so none of their rows may come along
    FOREACH name IN ARRAY ARRAY['run', 'product', 'purchase', 'return', 'part', 'day', 'part_day', 'pair_day', 'member', 'member_month', 'member_store', 'member_part', 'model']
    LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('loyalty.analysis_' || name)::pg_catalog.regclass, 'WHERE false');
    END LOOP;
    FOREACH name IN ARRAY ARRAY['run', 'added', 'stale', 'day', 'total', 'pair']
    LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('loyalty.copurchase_' || name)::pg_catalog.regclass, 'WHERE false');
    END LOOP;
END
$$;
