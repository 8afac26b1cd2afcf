/*
 * lots: the base type. Points by the days on which they become spendable and die. The values form a group: sums are exact,
 * commutative and associative, and every value has an inverse.
 */
CREATE TYPE loyalty.lots;

CREATE FUNCTION loyalty.lots_in(cstring) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_in';
COMMENT ON FUNCTION loyalty.lots_in(cstring) IS 'Reads the text form';

CREATE FUNCTION loyalty.lots_out(loyalty.lots) RETURNS cstring
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_out';
COMMENT ON FUNCTION loyalty.lots_out(loyalty.lots) IS 'Writes the text form';

CREATE FUNCTION loyalty.lots_recv(internal) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_recv';
COMMENT ON FUNCTION loyalty.lots_recv(internal) IS 'Reads the binary form';

CREATE FUNCTION loyalty.lots_send(loyalty.lots) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_send';
COMMENT ON FUNCTION loyalty.lots_send(loyalty.lots) IS 'Writes the binary form';

CREATE TYPE loyalty.lots (
    INPUT = loyalty.lots_in, OUTPUT = loyalty.lots_out,
    RECEIVE = loyalty.lots_recv, SEND = loyalty.lots_send,
    INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended
);

COMMENT ON TYPE loyalty.lots IS 'Points by the days on which they become spendable and die: {[2026-12-01,2027-12-01)=120, [2026-12-15,)=30}. A debt is [,)=-5; points that wait for a release are [infinity,)=5';

CREATE FUNCTION loyalty.lots_add(loyalty.lots, loyalty.lots) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_add';
COMMENT ON FUNCTION loyalty.lots_add(loyalty.lots, loyalty.lots) IS 'Adds';

CREATE FUNCTION loyalty.lots_subtract(loyalty.lots, loyalty.lots) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_subtract';
COMMENT ON FUNCTION loyalty.lots_subtract(loyalty.lots, loyalty.lots) IS 'Subtracts';

CREATE FUNCTION loyalty.lots_negate(loyalty.lots) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_negate';
COMMENT ON FUNCTION loyalty.lots_negate(loyalty.lots) IS 'The inverse';

CREATE FUNCTION loyalty.lots_eq(loyalty.lots, loyalty.lots) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bytes_eq';
COMMENT ON FUNCTION loyalty.lots_eq(loyalty.lots, loyalty.lots) IS 'Equal';

CREATE FUNCTION loyalty.lots_ne(loyalty.lots, loyalty.lots) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bytes_ne';
COMMENT ON FUNCTION loyalty.lots_ne(loyalty.lots, loyalty.lots) IS 'Not equal';

CREATE FUNCTION loyalty.lots_hash(loyalty.lots) RETURNS integer
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bytes_hash';
COMMENT ON FUNCTION loyalty.lots_hash(loyalty.lots) IS 'Hash of the value';

CREATE OPERATOR loyalty.+ (LEFTARG = loyalty.lots, RIGHTARG = loyalty.lots, FUNCTION = loyalty.lots_add, COMMUTATOR = OPERATOR(loyalty.+));
CREATE OPERATOR loyalty.- (LEFTARG = loyalty.lots, RIGHTARG = loyalty.lots, FUNCTION = loyalty.lots_subtract);
CREATE OPERATOR loyalty.- (RIGHTARG = loyalty.lots, FUNCTION = loyalty.lots_negate);
CREATE OPERATOR loyalty.= (LEFTARG = loyalty.lots, RIGHTARG = loyalty.lots, FUNCTION = loyalty.lots_eq,
    COMMUTATOR = OPERATOR(loyalty.=), NEGATOR = OPERATOR(loyalty.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES);
CREATE OPERATOR loyalty.<> (LEFTARG = loyalty.lots, RIGHTARG = loyalty.lots, FUNCTION = loyalty.lots_ne,
    COMMUTATOR = OPERATOR(loyalty.<>), NEGATOR = OPERATOR(loyalty.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR loyalty.+ (loyalty.lots, loyalty.lots) IS 'Adds';
COMMENT ON OPERATOR loyalty.- (loyalty.lots, loyalty.lots) IS 'Subtracts';
COMMENT ON OPERATOR loyalty.- (NONE, loyalty.lots) IS 'The inverse';
COMMENT ON OPERATOR loyalty.= (loyalty.lots, loyalty.lots) IS 'Equal';
COMMENT ON OPERATOR loyalty.<> (loyalty.lots, loyalty.lots) IS 'Not equal';
CREATE OPERATOR CLASS loyalty.lots_ops DEFAULT FOR TYPE loyalty.lots USING hash AS
    OPERATOR 1 loyalty.=, FUNCTION 1 loyalty.lots_hash(loyalty.lots);
COMMENT ON OPERATOR CLASS loyalty.lots_ops USING hash IS 'Grouping and hash joins';
COMMENT ON OPERATOR FAMILY loyalty.lots_ops USING hash IS 'Grouping and hash joins';

CREATE FUNCTION loyalty.lots_sum_step(internal, loyalty.lots) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_sum_step';
COMMENT ON FUNCTION loyalty.lots_sum_step(internal, loyalty.lots) IS 'Transition of sum';

CREATE FUNCTION loyalty.lots_sum_combine(internal, internal) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_sum_combine';
COMMENT ON FUNCTION loyalty.lots_sum_combine(internal, internal) IS 'Combines partial sums';

CREATE FUNCTION loyalty.lots_sum_final(internal) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_sum_final';
COMMENT ON FUNCTION loyalty.lots_sum_final(internal) IS 'Result of sum';

CREATE FUNCTION loyalty.lots_sum_serial(internal) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_sum_serial';
COMMENT ON FUNCTION loyalty.lots_sum_serial(internal) IS 'Writes a partial sum';

CREATE FUNCTION loyalty.lots_sum_deserial(bytea, internal) RETURNS internal
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_sum_deserial';
COMMENT ON FUNCTION loyalty.lots_sum_deserial(bytea, internal) IS 'Reads a partial sum';

CREATE AGGREGATE loyalty.sum(loyalty.lots) (
    SFUNC = loyalty.lots_sum_step, STYPE = internal, FINALFUNC = loyalty.lots_sum_final,
    COMBINEFUNC = loyalty.lots_sum_combine, SERIALFUNC = loyalty.lots_sum_serial,
    DESERIALFUNC = loyalty.lots_sum_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.sum(loyalty.lots) IS 'The sum; NULL over no rows';

CREATE FUNCTION loyalty.lots(available_from date, expires_on date, points bigint) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_make';
COMMENT ON FUNCTION loyalty.lots(available_from date, expires_on date, points bigint) IS 'One lot';

CREATE FUNCTION loyalty.available(lots loyalty.lots, day date) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_available';
COMMENT ON FUNCTION loyalty.available(lots loyalty.lots, day date) IS 'Points spendable on a day; a debt counts against them';

CREATE FUNCTION loyalty.pending(lots loyalty.lots, day date) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_pending';
COMMENT ON FUNCTION loyalty.pending(lots loyalty.lots, day date) IS 'Points that become spendable later than a day';

CREATE FUNCTION loyalty.expired(lots loyalty.lots, day date) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_expired';
COMMENT ON FUNCTION loyalty.expired(lots loyalty.lots, day date) IS 'Points that are dead on a day and not yet closed';

CREATE FUNCTION loyalty.total(lots loyalty.lots) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_total';
COMMENT ON FUNCTION loyalty.total(lots loyalty.lots) IS 'All points, whatever their days';

CREATE FUNCTION loyalty.debt(lots loyalty.lots) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_lots_debt';
COMMENT ON FUNCTION loyalty.debt(lots loyalty.lots) IS 'The debt, as a number that is not negative';

CREATE FUNCTION loyalty.unnest(lots loyalty.lots)
    RETURNS TABLE (available_from date, expires_on date, points bigint)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 5 AS 'MODULE_PATHNAME', 'loyalty_lots_unnest';
COMMENT ON FUNCTION loyalty.unnest(loyalty.lots) IS 'One row a lot';
