/*
 * tally: the base type. Spend, points and visits by month. The values form a group: sums are exact,
 * commutative and associative, and every value has an inverse.
 */
CREATE TYPE loyalty.tally;

CREATE FUNCTION loyalty.tally_in(cstring) RETURNS loyalty.tally
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_in';
COMMENT ON FUNCTION loyalty.tally_in(cstring) IS 'Reads the text form';

CREATE FUNCTION loyalty.tally_out(loyalty.tally) RETURNS cstring
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_out';
COMMENT ON FUNCTION loyalty.tally_out(loyalty.tally) IS 'Writes the text form';

CREATE FUNCTION loyalty.tally_recv(internal) RETURNS loyalty.tally
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_recv';
COMMENT ON FUNCTION loyalty.tally_recv(internal) IS 'Reads the binary form';

CREATE FUNCTION loyalty.tally_send(loyalty.tally) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_send';
COMMENT ON FUNCTION loyalty.tally_send(loyalty.tally) IS 'Writes the binary form';

CREATE TYPE loyalty.tally (
    INPUT = loyalty.tally_in, OUTPUT = loyalty.tally_out,
    RECEIVE = loyalty.tally_recv, SEND = loyalty.tally_send,
    INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended
);

COMMENT ON TYPE loyalty.tally IS 'Spend, points and visits by month: {2026-11: spend=120.5 points=12 visits=1}; "before" holds what was brought in from before the books';

CREATE FUNCTION loyalty.tally_add(loyalty.tally, loyalty.tally) RETURNS loyalty.tally
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_add';
COMMENT ON FUNCTION loyalty.tally_add(loyalty.tally, loyalty.tally) IS 'Adds';

CREATE FUNCTION loyalty.tally_subtract(loyalty.tally, loyalty.tally) RETURNS loyalty.tally
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_subtract';
COMMENT ON FUNCTION loyalty.tally_subtract(loyalty.tally, loyalty.tally) IS 'Subtracts';

CREATE FUNCTION loyalty.tally_negate(loyalty.tally) RETURNS loyalty.tally
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_negate';
COMMENT ON FUNCTION loyalty.tally_negate(loyalty.tally) IS 'The inverse';

CREATE FUNCTION loyalty.tally_eq(loyalty.tally, loyalty.tally) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bytes_eq';
COMMENT ON FUNCTION loyalty.tally_eq(loyalty.tally, loyalty.tally) IS 'Equal';

CREATE FUNCTION loyalty.tally_ne(loyalty.tally, loyalty.tally) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bytes_ne';
COMMENT ON FUNCTION loyalty.tally_ne(loyalty.tally, loyalty.tally) IS 'Not equal';

CREATE FUNCTION loyalty.tally_hash(loyalty.tally) RETURNS integer
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bytes_hash';
COMMENT ON FUNCTION loyalty.tally_hash(loyalty.tally) IS 'Hash of the value';

CREATE OPERATOR loyalty.+ (LEFTARG = loyalty.tally, RIGHTARG = loyalty.tally, FUNCTION = loyalty.tally_add, COMMUTATOR = OPERATOR(loyalty.+));
CREATE OPERATOR loyalty.- (LEFTARG = loyalty.tally, RIGHTARG = loyalty.tally, FUNCTION = loyalty.tally_subtract);
CREATE OPERATOR loyalty.- (RIGHTARG = loyalty.tally, FUNCTION = loyalty.tally_negate);
CREATE OPERATOR loyalty.= (LEFTARG = loyalty.tally, RIGHTARG = loyalty.tally, FUNCTION = loyalty.tally_eq,
    COMMUTATOR = OPERATOR(loyalty.=), NEGATOR = OPERATOR(loyalty.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES);
CREATE OPERATOR loyalty.<> (LEFTARG = loyalty.tally, RIGHTARG = loyalty.tally, FUNCTION = loyalty.tally_ne,
    COMMUTATOR = OPERATOR(loyalty.<>), NEGATOR = OPERATOR(loyalty.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR loyalty.+ (loyalty.tally, loyalty.tally) IS 'Adds';
COMMENT ON OPERATOR loyalty.- (loyalty.tally, loyalty.tally) IS 'Subtracts';
COMMENT ON OPERATOR loyalty.- (NONE, loyalty.tally) IS 'The inverse';
COMMENT ON OPERATOR loyalty.= (loyalty.tally, loyalty.tally) IS 'Equal';
COMMENT ON OPERATOR loyalty.<> (loyalty.tally, loyalty.tally) IS 'Not equal';
CREATE OPERATOR CLASS loyalty.tally_ops DEFAULT FOR TYPE loyalty.tally USING hash AS
    OPERATOR 1 loyalty.=, FUNCTION 1 loyalty.tally_hash(loyalty.tally);
COMMENT ON OPERATOR CLASS loyalty.tally_ops USING hash IS 'Grouping and hash joins';
COMMENT ON OPERATOR FAMILY loyalty.tally_ops USING hash IS 'Grouping and hash joins';

CREATE FUNCTION loyalty.tally_sum_step(internal, loyalty.tally) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_sum_step';
COMMENT ON FUNCTION loyalty.tally_sum_step(internal, loyalty.tally) IS 'Transition of sum';

CREATE FUNCTION loyalty.tally_sum_combine(internal, internal) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_sum_combine';
COMMENT ON FUNCTION loyalty.tally_sum_combine(internal, internal) IS 'Combines partial sums';

CREATE FUNCTION loyalty.tally_sum_final(internal) RETURNS loyalty.tally
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_sum_final';
COMMENT ON FUNCTION loyalty.tally_sum_final(internal) IS 'Result of sum';

CREATE FUNCTION loyalty.tally_sum_serial(internal) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_sum_serial';
COMMENT ON FUNCTION loyalty.tally_sum_serial(internal) IS 'Writes a partial sum';

CREATE FUNCTION loyalty.tally_sum_deserial(bytea, internal) RETURNS internal
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_sum_deserial';
COMMENT ON FUNCTION loyalty.tally_sum_deserial(bytea, internal) IS 'Reads a partial sum';

CREATE AGGREGATE loyalty.sum(loyalty.tally) (
    SFUNC = loyalty.tally_sum_step, STYPE = internal, FINALFUNC = loyalty.tally_sum_final,
    COMBINEFUNC = loyalty.tally_sum_combine, SERIALFUNC = loyalty.tally_sum_serial,
    DESERIALFUNC = loyalty.tally_sum_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.sum(loyalty.tally) IS 'The sum; NULL over no rows';

CREATE FUNCTION loyalty.tally(month date, spend numeric, points bigint, visits bigint) RETURNS loyalty.tally
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_make';
COMMENT ON FUNCTION loyalty.tally(month date, spend numeric, points bigint, visits bigint) IS 'The tally of one month; a NULL month: from before the books';

CREATE FUNCTION loyalty.spend(tally loyalty.tally) RETURNS numeric
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_spend';
COMMENT ON FUNCTION loyalty.spend(tally loyalty.tally) IS 'Lifetime spend';

CREATE FUNCTION loyalty.spend(tally loyalty.tally, from_month date, to_month date) RETURNS numeric
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_spend';
COMMENT ON FUNCTION loyalty.spend(tally loyalty.tally, from_month date, to_month date) IS 'Spend from the month of one day to that of another; NULL leaves a side open';

CREATE FUNCTION loyalty.points(tally loyalty.tally) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_points';
COMMENT ON FUNCTION loyalty.points(tally loyalty.tally) IS 'Lifetime points';

CREATE FUNCTION loyalty.points(tally loyalty.tally, from_month date, to_month date) RETURNS bigint
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_points';
COMMENT ON FUNCTION loyalty.points(tally loyalty.tally, from_month date, to_month date) IS 'Points from the month of one day to that of another; NULL leaves a side open';

CREATE FUNCTION loyalty.visits(tally loyalty.tally) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_visits';
COMMENT ON FUNCTION loyalty.visits(tally loyalty.tally) IS 'Lifetime visits';

CREATE FUNCTION loyalty.visits(tally loyalty.tally, from_month date, to_month date) RETURNS bigint
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tally_visits';
COMMENT ON FUNCTION loyalty.visits(tally loyalty.tally, from_month date, to_month date) IS 'Visits from the month of one day to that of another; NULL leaves a side open';

CREATE FUNCTION loyalty.unnest(tally loyalty.tally)
    RETURNS TABLE (month date, spend numeric, points bigint, visits bigint)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 12 AS 'MODULE_PATHNAME', 'loyalty_tally_unnest';
COMMENT ON FUNCTION loyalty.unnest(loyalty.tally) IS 'One row a month; NULL: from before the books';
