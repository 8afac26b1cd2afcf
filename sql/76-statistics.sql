/*
 * statistics: aggregates and functions over any table, not only the programme's.
 * Money stays numeric; what is double precision is a statistic.
 */
CREATE FUNCTION loyalty.pareto_step(internal, numeric, numeric) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_pareto_step';
COMMENT ON FUNCTION loyalty.pareto_step(internal, numeric, numeric) IS 'Transition of pareto_share';

CREATE FUNCTION loyalty.pareto_step(internal, numeric) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_pareto_step';
COMMENT ON FUNCTION loyalty.pareto_step(internal, numeric) IS 'Transition of pareto_curve';

CREATE FUNCTION loyalty.pareto_share_final(internal) RETURNS numeric
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_pareto_share';
COMMENT ON FUNCTION loyalty.pareto_share_final(internal) IS 'Result of pareto_share';

CREATE FUNCTION loyalty.pareto_curve_final(internal) RETURNS numeric[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_pareto_curve';
COMMENT ON FUNCTION loyalty.pareto_curve_final(internal) IS 'Result of pareto_curve';

CREATE AGGREGATE loyalty.pareto_share(amount numeric, share numeric) (
    SFUNC = loyalty.pareto_step, STYPE = internal, FINALFUNC = loyalty.pareto_share_final, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.pareto_share(numeric, numeric) IS 'The part of the total that the top share of the rows makes: pareto_share(spend, 0.2) over members says what the best fifth (rounded up to whole members) brings; NULL over no rows and where the total is 0';

CREATE AGGREGATE loyalty.pareto_curve(amount numeric) (
    SFUNC = loyalty.pareto_step, STYPE = internal, FINALFUNC = loyalty.pareto_curve_final, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.pareto_curve(numeric) IS 'pareto_share at 1 %, 2 % ... 100 % of the rows, as an array of 100';

CREATE FUNCTION loyalty.gini_step(internal, double precision) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_gini_step';
COMMENT ON FUNCTION loyalty.gini_step(internal, double precision) IS 'Transition of gini';

CREATE FUNCTION loyalty.gini_final(internal) RETURNS double precision
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_gini';
COMMENT ON FUNCTION loyalty.gini_final(internal) IS 'Result of gini';

CREATE AGGREGATE loyalty.gini(amount double precision) (
    SFUNC = loyalty.gini_step, STYPE = internal, FINALFUNC = loyalty.gini_final, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.gini(double precision) IS 'Gini''s coefficient: 0 where all have the same, near 1 where one has all; NULL over no rows and where the total is 0';

CREATE FUNCTION loyalty.nps_step(bigint[], integer) RETURNS bigint[]
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_nps_step';
COMMENT ON FUNCTION loyalty.nps_step(bigint[], integer) IS 'Transition of nps: detractors, passives and promoters so far';

CREATE FUNCTION loyalty.nps_combine(bigint[], bigint[]) RETURNS bigint[]
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_nps_combine';
COMMENT ON FUNCTION loyalty.nps_combine(bigint[], bigint[]) IS 'Combines partial counts of nps';

CREATE FUNCTION loyalty.nps_final(bigint[]) RETURNS numeric
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_nps';
COMMENT ON FUNCTION loyalty.nps_final(bigint[]) IS 'Result of nps';

CREATE AGGREGATE loyalty.nps(score integer) (
    SFUNC = loyalty.nps_step, STYPE = bigint[], INITCOND = '{0,0,0}', FINALFUNC = loyalty.nps_final,
    COMBINEFUNC = loyalty.nps_combine, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.nps(integer) IS 'Net promoter score of answers from 0 to 10: per cent of promoters (9, 10) less per cent of detractors (0 to 6), from -100 to 100; NULL over no answers';

CREATE TYPE loyalty.bgnbd_model AS (
    r               double precision,
    alpha           double precision,
    a               double precision,
    b               double precision,
    log_likelihood  double precision,
    customers       bigint,
    evaluations     integer,
    converged       boolean
);
COMMENT ON TYPE loyalty.bgnbd_model IS 'A fitted BG/NBD model (Fader, Hardie and Lee 2005): r and alpha say how often customers buy, a and b how soon they stop';

CREATE FUNCTION loyalty.bgnbd_step(internal, double precision, double precision, double precision) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bgnbd_step';
COMMENT ON FUNCTION loyalty.bgnbd_step(internal, double precision, double precision, double precision) IS 'Transition of bgnbd_fit';

CREATE FUNCTION loyalty.bgnbd_final(internal) RETURNS loyalty.bgnbd_model
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bgnbd_fit';
COMMENT ON FUNCTION loyalty.bgnbd_final(internal) IS 'Result of bgnbd_fit';

CREATE AGGREGATE loyalty.bgnbd_fit(x double precision, t_x double precision, t double precision) (
    SFUNC = loyalty.bgnbd_step, STYPE = internal, FINALFUNC = loyalty.bgnbd_final, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.bgnbd_fit(double precision, double precision, double precision) IS 'Fits BG/NBD by maximum likelihood to customers: x repeat purchases, the last of them t_x after the first purchase, which is T ago, in any unit of time; SELECT (bgnbd_fit(x, t_x, t)).* FROM ...; NULL where nobody came again';

CREATE FUNCTION loyalty.bgnbd_log_likelihood(r double precision, alpha double precision, a double precision, b double precision,
        x double precision, t_x double precision, t double precision) RETURNS double precision
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bgnbd_log_likelihood';
COMMENT ON FUNCTION loyalty.bgnbd_log_likelihood IS 'The log-likelihood of one customer under BG/NBD; that of many is the sum';

CREATE FUNCTION loyalty.bgnbd_alive(r double precision, alpha double precision, a double precision, b double precision,
        x double precision, t_x double precision, t double precision) RETURNS double precision
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bgnbd_alive';
COMMENT ON FUNCTION loyalty.bgnbd_alive IS 'The probability that a customer with that history is still one; 1 for whoever bought once, whom the model lets go only after a repeat purchase';

CREATE FUNCTION loyalty.bgnbd_expected(r double precision, alpha double precision, a double precision, b double precision,
        x double precision, t_x double precision, t double precision, horizon double precision) RETURNS double precision
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_bgnbd_expected';
COMMENT ON FUNCTION loyalty.bgnbd_expected IS 'The expected number of purchases of a customer with that history in the next horizon, in the unit of T; with x, t_x and T all 0 that of a new customer';

CREATE TYPE loyalty.gamma_gamma_model AS (
    p               double precision,
    q               double precision,
    v               double precision,
    log_likelihood  double precision,
    customers       bigint,
    evaluations     integer,
    converged       boolean
);
COMMENT ON TYPE loyalty.gamma_gamma_model IS 'A fitted gamma-gamma model of what a purchase is worth (Fader and Hardie 2013); v is their gamma';

CREATE FUNCTION loyalty.gamma_gamma_step(internal, double precision, double precision) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_gamma_gamma_step';
COMMENT ON FUNCTION loyalty.gamma_gamma_step(internal, double precision, double precision) IS 'Transition of gamma_gamma_fit';

CREATE FUNCTION loyalty.gamma_gamma_final(internal) RETURNS loyalty.gamma_gamma_model
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_gamma_gamma_fit';
COMMENT ON FUNCTION loyalty.gamma_gamma_final(internal) IS 'Result of gamma_gamma_fit';

CREATE AGGREGATE loyalty.gamma_gamma_fit(x double precision, m double precision) (
    SFUNC = loyalty.gamma_gamma_step, STYPE = internal, FINALFUNC = loyalty.gamma_gamma_final, PARALLEL = SAFE
);
COMMENT ON AGGREGATE loyalty.gamma_gamma_fit(double precision, double precision) IS 'Fits gamma-gamma by maximum likelihood to customers: x purchases of m each on average; NULL over fewer than two customers';

CREATE FUNCTION loyalty.gamma_gamma_log_likelihood(p double precision, q double precision, v double precision,
        x double precision, m double precision) RETURNS double precision
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_gamma_gamma_log_likelihood';
COMMENT ON FUNCTION loyalty.gamma_gamma_log_likelihood IS 'The log-likelihood of one customer under gamma-gamma; that of many is the sum';

CREATE FUNCTION loyalty.gamma_gamma_mean(p double precision, q double precision, v double precision,
        x double precision, m double precision) RETURNS double precision
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_gamma_gamma_mean';
COMMENT ON FUNCTION loyalty.gamma_gamma_mean IS 'What a purchase of a customer is expected to be worth: between the customer''s own mean and that of all; NULL where the model has no mean';
