/*
 * engine: the C functions behind everything, and the triggers that turn a
 * row into points.  None of these is for PUBLIC.
 */

CREATE FUNCTION loyalty.configuration_changed() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'loyalty_configuration_changed';
REVOKE ALL ON FUNCTION loyalty.configuration_changed() FROM PUBLIC;
COMMENT ON FUNCTION loyalty.configuration_changed() IS 'Tells every backend that programmes, rules or articles changed';

CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.program
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.tier
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.product
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.rule
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.rule_version
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();

CREATE FUNCTION loyalty.award() RETURNS trigger
    LANGUAGE C SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_award';
REVOKE ALL ON FUNCTION loyalty.award() FROM PUBLIC;
COMMENT ON FUNCTION loyalty.award() IS 'Turns purchases and activities into points';

CREATE TRIGGER award_insert AFTER INSERT ON loyalty.purchase
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.award();
CREATE TRIGGER award_update AFTER UPDATE ON loyalty.purchase
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.award();
CREATE TRIGGER award_insert AFTER INSERT ON loyalty.activity
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.award();
CREATE TRIGGER award_update AFTER UPDATE ON loyalty.activity
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.award();

CREATE FUNCTION loyalty.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = CASE WHEN TG_OP = 'TRUNCATE' THEN 'LY505' ELSE 'LY901' END,
              DETAIL = CASE TG_ARGV[0]
                  WHEN 'ledger' THEN 'The ledger is append-only.'
                  WHEN 'key' THEN 'The key and the time of recording of a transaction never change.'
                  ELSE 'Transactions are kept for as long as the ledger.' END,
              HINT = CASE TG_ARGV[0]
                  WHEN 'ledger' THEN 'Post a correction instead: loyalty.adjust.'
                  WHEN 'key' THEN 'Change the amounts, the member or the status instead.'
                  ELSE 'Set its status to void to take back what it earned.' END;
END
$$;
REVOKE ALL ON FUNCTION loyalty.refuse_change() FROM PUBLIC;
COMMENT ON FUNCTION loyalty.refuse_change() IS 'Refuses what would rewrite history';

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.entry
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.tier_change
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.account
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.held_award
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('transaction');
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.purchase
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('transaction');
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.activity
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('transaction');
CREATE TRIGGER refuse_key_change BEFORE UPDATE OF purchase_id, recorded_at ON loyalty.purchase
    FOR EACH ROW WHEN (OLD.purchase_id <> NEW.purchase_id OR OLD.recorded_at <> NEW.recorded_at)
    EXECUTE FUNCTION loyalty.refuse_change('key');
CREATE TRIGGER refuse_key_change BEFORE UPDATE OF activity_id, recorded_at ON loyalty.activity
    FOR EACH ROW WHEN (OLD.activity_id <> NEW.activity_id OR OLD.recorded_at <> NEW.recorded_at)
    EXECUTE FUNCTION loyalty.refuse_change('key');

CREATE FUNCTION loyalty.check_rule(name text, event text, kind text, points text, condition text) RETURNS void
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'loyalty_check_rule';
REVOKE ALL ON FUNCTION loyalty.check_rule(text, text, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.check_rule(text, text, text, text, text) IS 'Compiles a rule; raises LY201 or LY202 where it is wrong or not allowed';

CREATE FUNCTION loyalty.check_source(source text) RETURNS void
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_check_source';
REVOKE ALL ON FUNCTION loyalty.check_source(text) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.check_source(text) IS 'Refuses (LY902) a source that belongs to an attached table, except to the rows of that table';

CREATE FUNCTION loyalty.rule_constant(condition text, event text) RETURNS text
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_rule_constant';
REVOKE ALL ON FUNCTION loyalty.rule_constant(text, text) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.rule_constant(text, text) IS 'true, false or null where a condition is constant, else NULL';

CREATE FUNCTION loyalty.post(account_id bigint, kind text, lots loyalty.lots, tally loyalty.tally,
        occurred_at timestamptz, reason text, key text, source_id bigint DEFAULT NULL, detail jsonb DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'loyalty_post';
REVOKE ALL ON FUNCTION loyalty.post(bigint, text, loyalty.lots, loyalty.tally, timestamptz, text, text, bigint, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.post(bigint, text, loyalty.lots, loyalty.tally, timestamptz, text, text, bigint, jsonb) IS 'Locks an account and posts one entry; returns its number';

CREATE FUNCTION loyalty.settle_holds(account_id bigint) RETURNS void
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_settle_holds';
REVOKE ALL ON FUNCTION loyalty.settle_holds(bigint) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.settle_holds(bigint) IS 'Locks an account and writes down which of its holds ended by themselves';

CREATE FUNCTION loyalty.take_lots(account_id bigint, points bigint, day date) RETURNS loyalty.lots
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_take_lots';
REVOKE ALL ON FUNCTION loyalty.take_lots(bigint, bigint, date) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.take_lots(bigint, bigint, date) IS 'Locks an account and tells which lots taking points away posts, by the programme''s negative policy';

CREATE FUNCTION loyalty.earn_lots(account_id bigint, available_from date, expires_on date, points bigint) RETURNS loyalty.lots
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_earn_lots';
REVOKE ALL ON FUNCTION loyalty.earn_lots(bigint, date, date, bigint) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.earn_lots(bigint, date, date, bigint) IS 'Locks an account and tells which lots giving points posts: a debt is repaid first';

CREATE FUNCTION loyalty.post_expiry(account_ids bigint[], as_of date) RETURNS bigint
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_post_expiry';
REVOKE ALL ON FUNCTION loyalty.post_expiry(bigint[], date) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.post_expiry(bigint[], date) IS 'Closes the dead lots of accounts; returns the number of entries';

CREATE FUNCTION loyalty.release_pending(source_id bigint, available_from date DEFAULT NULL, reason text DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_release_pending';
REVOKE ALL ON FUNCTION loyalty.release_pending(bigint, date, text) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.release_pending(bigint, date, text) IS 'Lets the pending points of a purchase or activity become available on a day (NULL: today), from which their life is counted; returns how many. Doing it again does nothing';

CREATE FUNCTION loyalty.post_reinstatement(account_id bigint, points bigint, reason text, key text) RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'loyalty_post_reinstatement';
REVOKE ALL ON FUNCTION loyalty.post_reinstatement(bigint, bigint, text, text) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.post_reinstatement(bigint, bigint, text, text) IS 'Gives points that died lately (NULL: all of them) restore_days more; LY406 where there are not so many';

CREATE FUNCTION loyalty.post_review(account_ids bigint[], as_of date) RETURNS bigint
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_post_review';
REVOKE ALL ON FUNCTION loyalty.post_review(bigint[], date) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.post_review(bigint[], date) IS 'Renews or lowers tiers that are due; returns the number of changes';

CREATE FUNCTION loyalty.set_tier(member_id bigint, tier text, pinned_until date, reason text) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_set_tier';
REVOKE ALL ON FUNCTION loyalty.set_tier(bigint, text, date, text) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.set_tier(bigint, text, date, text) IS 'Sets a member''s tier by hand (NULL: none), pinned to a date, with a reason';

CREATE FUNCTION loyalty.local_day(program_id integer, at timestamptz) RETURNS date
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_local_day';
REVOKE ALL ON FUNCTION loyalty.local_day(integer, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.local_day(integer, timestamptz) IS 'The day of an instant in a programme''s time zone';

CREATE FUNCTION loyalty.expires_on(program_id integer, available_from date) RETURNS date
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_expires_on';
REVOKE ALL ON FUNCTION loyalty.expires_on(integer, date) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.expires_on(integer, date) IS 'The first day on which points that become available on a day are dead, by the programme''s policy';

CREATE FUNCTION loyalty.earned_tier(account_id bigint, day date) RETURNS integer
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_earned_tier';
REVOKE ALL ON FUNCTION loyalty.earned_tier(bigint, date) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.earned_tier(bigint, date) IS 'The tier_id that the account''s window earns on a day';

CREATE FUNCTION loyalty.currency_digits(currency text) RETURNS integer
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_currency_digits';
COMMENT ON FUNCTION loyalty.currency_digits(text) IS 'Digits of a currency''s minor unit (ISO 4217)';

CREATE FUNCTION loyalty.lots_at(program_id integer, lots loyalty.lots, holds loyalty.hold[], last_event_at timestamptz, at timestamptz,
        OUT free loyalty.lots, OUT held loyalty.lots)
    LANGUAGE C STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_lots_at';
REVOKE ALL ON FUNCTION loyalty.lots_at(integer, loyalty.lots, loyalty.hold[], timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.lots_at(integer, loyalty.lots, loyalty.hold[], timestamptz, timestamptz) IS 'An account''s lots that are free at an instant and those that a hold has frozen; holds that lapsed by then count as released. Under a sliding policy the free lots show the day on which they die';

CREATE FUNCTION loyalty.quote_purchase(purchase loyalty.purchase,
        OUT points bigint, OUT available_from date, OUT expires_on date,
        OUT tier text, OUT tier_after text, OUT breakdown bytea)
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_quote_purchase';
REVOKE ALL ON FUNCTION loyalty.quote_purchase(loyalty.purchase) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.quote_purchase(loyalty.purchase) IS 'What a purchase would earn, by the code that awards it; writes nothing';

CREATE FUNCTION loyalty.explain_source(source_id bigint)
    RETURNS TABLE (rule text, version integer, event text, kind text, fired boolean,
                   points bigint, exact numeric, why text)
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_explain_source';
REVOKE ALL ON FUNCTION loyalty.explain_source(bigint) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.explain_source(bigint) IS 'Why each rule fired on a purchase or activity, or why it did not';

CREATE FUNCTION loyalty.release_award(source_id bigint) RETURNS bigint
    LANGUAGE C VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_release_award';
REVOKE ALL ON FUNCTION loyalty.release_award(bigint) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.release_award(bigint) IS 'Decides a held award and posts it, without a reason; returns the points. Where a rule had raised, with the rules of now, else with those known when it was held';

CREATE FUNCTION loyalty.simulate(program_id integer, rules jsonb DEFAULT '[]', from_at timestamptz DEFAULT '-infinity',
        until_at timestamptz DEFAULT 'infinity', keep_existing boolean DEFAULT true)
    RETURNS TABLE (rule text, tier text, awards bigint, points bigint, cost numeric)
    LANGUAGE C STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_simulate' ROWS 100 COST 1000000;
REVOKE ALL ON FUNCTION loyalty.simulate(integer, jsonb, timestamptz, timestamptz, boolean) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.simulate(integer, jsonb, timestamptz, timestamptz, boolean) IS
    'What draft rules would have given for past purchases and activities, by rule and tier; writes nothing. A draft replaces the rule of its name. Limits, coupons, challenges and referrals are not asked';

CREATE FUNCTION loyalty.breakdown_rules(breakdown bytea)
    RETURNS TABLE (rule_version_id integer, tier_id integer, exact numeric, points bigint)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 5 AS 'MODULE_PATHNAME', 'loyalty_breakdown_rules';
REVOKE ALL ON FUNCTION loyalty.breakdown_rules(bytea) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.breakdown_rules(bytea) IS 'The rules'' parts of an award, in smallest units: exact and as posted';

CREATE FUNCTION loyalty.breakdown_lines(breakdown bytea)
    RETURNS TABLE (line integer, points bigint)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 20 AS 'MODULE_PATHNAME', 'loyalty_breakdown_lines';
REVOKE ALL ON FUNCTION loyalty.breakdown_lines(bytea) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.breakdown_lines(bytea) IS 'The lines'' shares of an award';

CREATE FUNCTION loyalty.is_chained(previous bytea, entry loyalty.entry) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_is_chained';
REVOKE ALL ON FUNCTION loyalty.is_chained(bytea, loyalty.entry) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.is_chained(bytea, loyalty.entry) IS 'Whether an entry''s hash is right behind the previous one (NULL or empty: the first); NULL where its key is not in the key file';
