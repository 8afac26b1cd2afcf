/*
 * copurchase: which items are bought together. Exact counts of baskets, items and pairs, as a value: it is
 * made by an aggregate, stored per day, store or segment, added up by sum, taken away by -, and read by
 * pairs, item_counts and also_bought.
 */
CREATE TYPE loyalty.copurchase;

CREATE FUNCTION loyalty.copurchase_in(cstring) RETURNS loyalty.copurchase
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_in';
COMMENT ON FUNCTION loyalty.copurchase_in(cstring) IS 'Reads the text form, which is the binary one in hexadecimal digits';

CREATE FUNCTION loyalty.copurchase_out(loyalty.copurchase) RETURNS cstring
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_out';
COMMENT ON FUNCTION loyalty.copurchase_out(loyalty.copurchase) IS 'Writes the text form';

CREATE FUNCTION loyalty.copurchase_recv(internal) RETURNS loyalty.copurchase
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_recv';
COMMENT ON FUNCTION loyalty.copurchase_recv(internal) IS 'Reads the binary form';

CREATE FUNCTION loyalty.copurchase_send(loyalty.copurchase) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_send';
COMMENT ON FUNCTION loyalty.copurchase_send(loyalty.copurchase) IS 'Writes the binary form';

CREATE TYPE loyalty.copurchase (
    INPUT = loyalty.copurchase_in, OUTPUT = loyalty.copurchase_out,
    RECEIVE = loyalty.copurchase_recv, SEND = loyalty.copurchase_send,
    INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = external
);
COMMENT ON TYPE loyalty.copurchase IS 'How many baskets held each item and each pair of items; made by the aggregate copurchase(items), added up by sum, read by pairs, item_counts and also_bought';

CREATE FUNCTION loyalty.copurchase_add(loyalty.copurchase, loyalty.copurchase) RETURNS loyalty.copurchase
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_add';
COMMENT ON FUNCTION loyalty.copurchase_add(loyalty.copurchase, loyalty.copurchase) IS 'The baskets of both';

CREATE FUNCTION loyalty.copurchase_subtract(loyalty.copurchase, loyalty.copurchase) RETURNS loyalty.copurchase
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_subtract';
COMMENT ON FUNCTION loyalty.copurchase_subtract(loyalty.copurchase, loyalty.copurchase) IS 'Takes baskets away again; an error where they were not in';

CREATE FUNCTION loyalty.copurchase_eq(loyalty.copurchase, loyalty.copurchase) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bytes_eq';
COMMENT ON FUNCTION loyalty.copurchase_eq(loyalty.copurchase, loyalty.copurchase) IS 'Equal';

CREATE FUNCTION loyalty.copurchase_ne(loyalty.copurchase, loyalty.copurchase) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bytes_ne';
COMMENT ON FUNCTION loyalty.copurchase_ne(loyalty.copurchase, loyalty.copurchase) IS 'Not equal';

CREATE OPERATOR loyalty.+ (LEFTARG = loyalty.copurchase, RIGHTARG = loyalty.copurchase, FUNCTION = loyalty.copurchase_add, COMMUTATOR = OPERATOR(loyalty.+));
CREATE OPERATOR loyalty.- (LEFTARG = loyalty.copurchase, RIGHTARG = loyalty.copurchase, FUNCTION = loyalty.copurchase_subtract);
CREATE OPERATOR loyalty.= (LEFTARG = loyalty.copurchase, RIGHTARG = loyalty.copurchase, FUNCTION = loyalty.copurchase_eq,
    COMMUTATOR = OPERATOR(loyalty.=), NEGATOR = OPERATOR(loyalty.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR loyalty.<> (LEFTARG = loyalty.copurchase, RIGHTARG = loyalty.copurchase, FUNCTION = loyalty.copurchase_ne,
    COMMUTATOR = OPERATOR(loyalty.<>), NEGATOR = OPERATOR(loyalty.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR loyalty.+ (loyalty.copurchase, loyalty.copurchase) IS 'The baskets of both';
COMMENT ON OPERATOR loyalty.- (loyalty.copurchase, loyalty.copurchase) IS 'Takes baskets away again';
COMMENT ON OPERATOR loyalty.= (loyalty.copurchase, loyalty.copurchase) IS 'Equal';
COMMENT ON OPERATOR loyalty.<> (loyalty.copurchase, loyalty.copurchase) IS 'Not equal';

/* The aggregates. */
CREATE FUNCTION loyalty.copurchase_step(internal, text[]) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_step';
COMMENT ON FUNCTION loyalty.copurchase_step(internal, text[]) IS 'Takes in a basket';

CREATE FUNCTION loyalty.copurchase_step(internal, text[], integer) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_step';
COMMENT ON FUNCTION loyalty.copurchase_step(internal, text[], integer) IS 'Takes in a basket';

CREATE FUNCTION loyalty.copurchase_step(internal, bigint[]) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_step';
COMMENT ON FUNCTION loyalty.copurchase_step(internal, bigint[]) IS 'Takes in a basket';

CREATE FUNCTION loyalty.copurchase_step(internal, bigint[], integer) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_step';
COMMENT ON FUNCTION loyalty.copurchase_step(internal, bigint[], integer) IS 'Takes in a basket';

CREATE FUNCTION loyalty.copurchase_step(internal, integer[]) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_step';
COMMENT ON FUNCTION loyalty.copurchase_step(internal, integer[]) IS 'Takes in a basket';

CREATE FUNCTION loyalty.copurchase_step(internal, integer[], integer) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_step';
COMMENT ON FUNCTION loyalty.copurchase_step(internal, integer[], integer) IS 'Takes in a basket';

CREATE FUNCTION loyalty.copurchase_step(internal, loyalty.line[]) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_step';
COMMENT ON FUNCTION loyalty.copurchase_step(internal, loyalty.line[]) IS 'Takes in a basket';

CREATE FUNCTION loyalty.copurchase_step(internal, loyalty.line[], integer) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_step';
COMMENT ON FUNCTION loyalty.copurchase_step(internal, loyalty.line[], integer) IS 'Takes in a basket';

CREATE FUNCTION loyalty.copurchase_rows_step(internal, "any", "any") RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_rows_step';
COMMENT ON FUNCTION loyalty.copurchase_rows_step(internal, "any", "any") IS 'Takes in an item of a basket';

CREATE FUNCTION loyalty.copurchase_rows_step(internal, "any", "any", integer) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_rows_step';
COMMENT ON FUNCTION loyalty.copurchase_rows_step(internal, "any", "any", integer) IS 'Takes in an item of a basket';

CREATE FUNCTION loyalty.copurchase_sum_step(internal, loyalty.copurchase) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_sum_step';
COMMENT ON FUNCTION loyalty.copurchase_sum_step(internal, loyalty.copurchase) IS 'Takes in statistics';

CREATE FUNCTION loyalty.copurchase_combine(internal, internal) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_combine';
COMMENT ON FUNCTION loyalty.copurchase_combine(internal, internal) IS 'Combines partial baskets';

CREATE FUNCTION loyalty.copurchase_serial(internal) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_serial';
COMMENT ON FUNCTION loyalty.copurchase_serial(internal) IS 'Writes partial baskets';

CREATE FUNCTION loyalty.copurchase_deserial(bytea, internal) RETURNS internal
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_deserial';
COMMENT ON FUNCTION loyalty.copurchase_deserial(bytea, internal) IS 'Reads partial baskets';

CREATE FUNCTION loyalty.copurchase_final(internal) RETURNS loyalty.copurchase
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_final';
COMMENT ON FUNCTION loyalty.copurchase_final(internal) IS 'Counts the pairs';

CREATE FUNCTION loyalty.copurchase_rows_combine(internal, internal) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_rows_combine';
COMMENT ON FUNCTION loyalty.copurchase_rows_combine(internal, internal) IS 'Combines partial rows of baskets';

CREATE FUNCTION loyalty.copurchase_rows_serial(internal) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_rows_serial';
COMMENT ON FUNCTION loyalty.copurchase_rows_serial(internal) IS 'Writes partial rows of baskets';

CREATE FUNCTION loyalty.copurchase_rows_deserial(bytea, internal) RETURNS internal
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_rows_deserial';
COMMENT ON FUNCTION loyalty.copurchase_rows_deserial(bytea, internal) IS 'Reads partial rows of baskets';

CREATE FUNCTION loyalty.copurchase_rows_final(internal) RETURNS loyalty.copurchase
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_rows_final';
COMMENT ON FUNCTION loyalty.copurchase_rows_final(internal) IS 'Counts the pairs';

CREATE AGGREGATE loyalty.copurchase(items text[]) (
    SFUNC = loyalty.copurchase_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_combine, SERIALFUNC = loyalty.copurchase_serial,
    DESERIALFUNC = loyalty.copurchase_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase(items text[]) IS 'What is bought together, of a basket a row; NULL over no rows. A basket of more than 500 items counts no pairs';

CREATE AGGREGATE loyalty.copurchase(items text[], max_items integer) (
    SFUNC = loyalty.copurchase_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_combine, SERIALFUNC = loyalty.copurchase_serial,
    DESERIALFUNC = loyalty.copurchase_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase(items text[], max_items integer) IS 'The same, and a basket of more than max_items items counts no pairs';

CREATE AGGREGATE loyalty.copurchase(items bigint[]) (
    SFUNC = loyalty.copurchase_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_combine, SERIALFUNC = loyalty.copurchase_serial,
    DESERIALFUNC = loyalty.copurchase_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase(items bigint[]) IS 'What is bought together, of a basket a row; NULL over no rows. A basket of more than 500 items counts no pairs';

CREATE AGGREGATE loyalty.copurchase(items bigint[], max_items integer) (
    SFUNC = loyalty.copurchase_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_combine, SERIALFUNC = loyalty.copurchase_serial,
    DESERIALFUNC = loyalty.copurchase_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase(items bigint[], max_items integer) IS 'The same, and a basket of more than max_items items counts no pairs';

CREATE AGGREGATE loyalty.copurchase(items integer[]) (
    SFUNC = loyalty.copurchase_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_combine, SERIALFUNC = loyalty.copurchase_serial,
    DESERIALFUNC = loyalty.copurchase_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase(items integer[]) IS 'What is bought together, of a basket a row; NULL over no rows. A basket of more than 500 items counts no pairs';

CREATE AGGREGATE loyalty.copurchase(items integer[], max_items integer) (
    SFUNC = loyalty.copurchase_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_combine, SERIALFUNC = loyalty.copurchase_serial,
    DESERIALFUNC = loyalty.copurchase_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase(items integer[], max_items integer) IS 'The same, and a basket of more than max_items items counts no pairs';

CREATE AGGREGATE loyalty.copurchase(lines loyalty.line[]) (
    SFUNC = loyalty.copurchase_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_combine, SERIALFUNC = loyalty.copurchase_serial,
    DESERIALFUNC = loyalty.copurchase_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase(lines loyalty.line[]) IS 'What is bought together, of a basket a row; NULL over no rows. A basket of more than 500 items counts no pairs';

CREATE AGGREGATE loyalty.copurchase(lines loyalty.line[], max_items integer) (
    SFUNC = loyalty.copurchase_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_combine, SERIALFUNC = loyalty.copurchase_serial,
    DESERIALFUNC = loyalty.copurchase_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase(lines loyalty.line[], max_items integer) IS 'The same, and a basket of more than max_items items counts no pairs';

CREATE AGGREGATE loyalty.copurchase_rows(basket "any", item "any") (
    SFUNC = loyalty.copurchase_rows_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_rows_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_rows_combine, SERIALFUNC = loyalty.copurchase_rows_serial,
    DESERIALFUNC = loyalty.copurchase_rows_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase_rows(basket "any", item "any") IS 'What is bought together, of an item a row, in any order; basket and item are integers or texts';

CREATE AGGREGATE loyalty.copurchase_rows(basket "any", item "any", max_items integer) (
    SFUNC = loyalty.copurchase_rows_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_rows_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_rows_combine, SERIALFUNC = loyalty.copurchase_rows_serial,
    DESERIALFUNC = loyalty.copurchase_rows_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.copurchase_rows(basket "any", item "any", max_items integer) IS 'The same, and a basket of more than max_items items counts no pairs';

CREATE AGGREGATE loyalty.sum(loyalty.copurchase) (
    SFUNC = loyalty.copurchase_sum_step, STYPE = internal, SSPACE = 32768, FINALFUNC = loyalty.copurchase_final, FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = loyalty.copurchase_combine, SERIALFUNC = loyalty.copurchase_serial,
    DESERIALFUNC = loyalty.copurchase_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.sum(loyalty.copurchase) IS 'The baskets of all; NULL over no rows';

/* Reading. */
CREATE FUNCTION loyalty.basket_count(copurchase loyalty.copurchase) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_baskets';
COMMENT ON FUNCTION loyalty.basket_count(copurchase loyalty.copurchase) IS 'Baskets with at least one item';

CREATE FUNCTION loyalty.totals(copurchase loyalty.copurchase, OUT baskets bigint, OUT items bigint, OUT pairs bigint, OUT capped_baskets bigint, OUT capped_items bigint) RETURNS record
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_copurchase_totals';
COMMENT ON FUNCTION loyalty.totals(copurchase loyalty.copurchase) IS 'Baskets, distinct items and pairs; and the baskets that were too large for their pairs to be counted, with the items in them';

CREATE FUNCTION loyalty.item_counts(copurchase loyalty.copurchase) RETURNS TABLE (item text, n bigint)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 1000 AS 'MODULE_PATHNAME', 'loyalty_copurchase_items';
COMMENT ON FUNCTION loyalty.item_counts(copurchase loyalty.copurchase) IS 'Every item and the baskets that held it, in the order of items';

CREATE FUNCTION loyalty.pair_counts(copurchase loyalty.copurchase, min_count bigint DEFAULT 1) RETURNS TABLE (a text, b text, n_ab bigint)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10000 AS 'MODULE_PATHNAME', 'loyalty_copurchase_pair_counts';
COMMENT ON FUNCTION loyalty.pair_counts(copurchase loyalty.copurchase, min_count bigint) IS 'Every pair that at least min_count baskets held, and how many';

CREATE FUNCTION loyalty.pairs(copurchase loyalty.copurchase, min_count bigint DEFAULT 1) RETURNS TABLE (a text, b text, n bigint, n_a bigint, n_b bigint, n_ab bigint,
    support float8, confidence_ab float8, confidence_ba float8, lift float8, leverage float8, conviction_ab float8, conviction_ba float8, jaccard float8, cosine float8, kulczynski float8, imbalance_ratio float8, chi_square float8, log_likelihood float8)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10000 AS 'MODULE_PATHNAME', 'loyalty_copurchase_pairs';
COMMENT ON FUNCTION loyalty.pairs(copurchase loyalty.copurchase, min_count bigint) IS 'Every pair that at least min_count baskets held, with its counts and measures';

CREATE FUNCTION loyalty.also_bought(copurchase loyalty.copurchase, basket text[], k integer DEFAULT 10, measure text DEFAULT 'cosine', min_count bigint DEFAULT 2) RETURNS TABLE (item text, because text, n_ab bigint, score float8)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'loyalty_copurchase_also_bought';
COMMENT ON FUNCTION loyalty.also_bought(copurchase loyalty.copurchase, basket text[], k integer, measure text, min_count bigint) IS 'What goes with a basket and is not in it: the k items with the best measure towards any item of the basket, and which that is';
