/*
 * program: what a programme is, its tiers, its products and its rules.
 *
 * Rules are immutable versions.  A version may be retired, never edited: an
 * award that was made under it can be explained and corrected for ever.
 */

CREATE TABLE loyalty.program (
    program_id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                text NOT NULL UNIQUE CHECK (name <> '' AND octet_length(name) <= 200),
    time_zone           text NOT NULL,
    currency            text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    points_name         text NOT NULL DEFAULT 'points',
    points_scale        smallint NOT NULL DEFAULT 0 CHECK (points_scale BETWEEN 0 AND 4),
    point_value         numeric CHECK (point_value >= 0 AND point_value < 1e9),
    pending             text NOT NULL DEFAULT 'days' CHECK (pending IN ('days', 'release')),
    hold_days           integer NOT NULL DEFAULT 0 CHECK (hold_days BETWEEN 0 AND 3650),
    expiry              text NOT NULL DEFAULT 'after' CHECK (expiry IN ('never', 'after', 'fixed_day', 'sliding')),
    expiry_months       integer NOT NULL DEFAULT 12 CHECK (expiry_months BETWEEN 0 AND 1200),
    expiry_days         integer NOT NULL DEFAULT 0 CHECK (expiry_days BETWEEN 0 AND 36500),
    expiry_round        text NOT NULL DEFAULT 'month' CHECK (expiry_round IN ('day', 'month', 'year')),
    expiry_fixed_day    text CHECK (expiry_fixed_day ~ '^(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$'),
    rounding            text NOT NULL DEFAULT 'floor' CHECK (rounding IN ('floor', 'nearest', 'ceil')),
    multipliers         text NOT NULL DEFAULT 'product' CHECK (multipliers IN ('product', 'best')),
    earn_on_tax         boolean NOT NULL DEFAULT false,
    earn_on_shipping    boolean NOT NULL DEFAULT false,
    earn_on_gift_card   boolean NOT NULL DEFAULT false,
    earn_on_points      boolean NOT NULL DEFAULT false,
    negative            text NOT NULL DEFAULT 'allow' CHECK (negative IN ('forbid', 'clamp', 'allow')),
    negative_limit      bigint CHECK (negative_limit >= 0),
    tier_window         text NOT NULL DEFAULT 'calendar' CHECK (tier_window IN ('calendar', 'rolling', 'anniversary', 'lifetime')),
    tier_months         integer NOT NULL DEFAULT 12 CHECK (tier_months BETWEEN 1 AND 120),
    downgrade           text NOT NULL DEFAULT 'one_step' CHECK (downgrade IN ('none', 'one_step', 'requalify')),
    grace_days          integer NOT NULL DEFAULT 0 CHECK (grace_days BETWEEN 0 AND 3650),
    revoke_days         integer NOT NULL DEFAULT 30 CHECK (revoke_days BETWEEN 0 AND 3650),
    restore             text NOT NULL DEFAULT 'grace' CHECK (restore IN ('grace', 'expired')),
    restore_days        integer NOT NULL DEFAULT 30 CHECK (restore_days BETWEEN 0 AND 3650),
    reinstate_days      integer NOT NULL DEFAULT 0 CHECK (reinstate_days BETWEEN 0 AND 3650),
    redeem_min          bigint NOT NULL DEFAULT 1 CHECK (redeem_min >= 1),
    redeem_step         bigint NOT NULL DEFAULT 1 CHECK (redeem_step >= 1),
    redeem_max          bigint CHECK (redeem_max >= redeem_min),
    redeem_max_share    numeric NOT NULL DEFAULT 1 CHECK (redeem_max_share > 0 AND redeem_max_share <= 1),
    redeem_line_max     numeric CHECK (redeem_line_max >= 0 AND redeem_line_max < 1e12),
    transfer_max        bigint CHECK (transfer_max >= 0),
    household_max       integer CHECK (household_max >= 1),
    proof_above         bigint CHECK (proof_above >= 0),
    cashier_points_max  bigint CHECK (cashier_points_max >= 0),
    cashier_redemptions_max integer CHECK (cashier_redemptions_max >= 0),
    country_code        text CHECK (country_code ~ '^[1-9][0-9]{0,2}$'),
    on_rule_error       text NOT NULL DEFAULT 'fail' CHECK (on_rule_error IN ('fail', 'hold')),
    wallet_of           integer,
    wallet              text CHECK (wallet <> '' AND octet_length(wallet) <= 200),
    created_at          timestamptz NOT NULL DEFAULT now(),
    UNIQUE (wallet_of, wallet),
    CONSTRAINT program_wallet_policy_check CHECK ((wallet_of IS NULL) = (wallet IS NULL) AND (wallet_of IS NULL OR (on_rule_error = 'fail' AND program_id < 40000))),
    CHECK (expiry <> 'fixed_day' OR expiry_fixed_day IS NOT NULL),
    CHECK (expiry NOT IN ('after', 'sliding') OR expiry_months > 0 OR expiry_days > 0)
);
COMMENT ON TABLE loyalty.program IS 'A loyalty programme and its policies';
COMMENT ON COLUMN loyalty.program.time_zone IS 'Days, day-parts, expiry and birthdays are reckoned in this zone';
COMMENT ON COLUMN loyalty.program.currency IS 'ISO 4217 code; money of this programme is in this currency''s unit';
COMMENT ON COLUMN loyalty.program.points_scale IS 'Decimal digits of a point: bigint amounts count 1/10^scale of a point';
COMMENT ON COLUMN loyalty.program.point_value IS 'What one whole point is worth in the currency, for "your points are worth"';
COMMENT ON COLUMN loyalty.program.pending IS 'Earned points wait hold_days, or until loyalty.release_pending releases them';
COMMENT ON COLUMN loyalty.program.hold_days IS 'Points become available this many days after the purchase: the return window';
COMMENT ON COLUMN loyalty.program.expiry IS 'never; after expiry_months and expiry_days from the day the points become available; or on the fixed day of the year expiry_fixed_day (MM-DD, the last valid day); or sliding: all points die together that long after the account''s last entry';
COMMENT ON COLUMN loyalty.program.expiry_round IS 'Points stay valid to the end of that day, month or year';
COMMENT ON COLUMN loyalty.program.rounding IS 'How the exact points of an order become whole ones, once an order';
COMMENT ON COLUMN loyalty.program.multipliers IS 'Multiply rules that fire together: their product, or only the best one';
COMMENT ON COLUMN loyalty.program.negative IS 'When points are taken back that were spent: refuse, take what is there, or leave a debt up to negative_limit';
COMMENT ON COLUMN loyalty.program.tier_window IS 'What qualifies: the calendar year, the last tier_months months, the year since joining, or everything';
COMMENT ON COLUMN loyalty.program.revoke_days IS 'A take-back below the threshold demotes only this many days after the promotion';
COMMENT ON COLUMN loyalty.program.restore IS 'Points given back (undo, a hold released) that died meanwhile: grace lets them live restore_days more, expired gives them back dead';
COMMENT ON COLUMN loyalty.program.restore_days IS 'Days that given back points live which had died; 0: none';
COMMENT ON COLUMN loyalty.program.reinstate_days IS 'Points that died so many days ago at most may be reinstated, for restore_days; 0: none';
COMMENT ON COLUMN loyalty.program.redeem_min IS 'Fewest points of one redemption, in smallest units';
COMMENT ON COLUMN loyalty.program.redeem_step IS 'A redemption is a multiple of so many points, in smallest units';
COMMENT ON COLUMN loyalty.program.redeem_max IS 'Most points of one redemption, in smallest units; NULL: no limit';
COMMENT ON COLUMN loyalty.program.redeem_max_share IS 'Share of an order that points may pay, 0.5 = half';
COMMENT ON COLUMN loyalty.program.redeem_line_max IS 'Most money of one line that points may pay; NULL: the whole line';
COMMENT ON COLUMN loyalty.program.transfer_max IS 'Most points of one transfer between members; 0: no transfers; NULL: no limit';
COMMENT ON COLUMN loyalty.program.household_max IS 'Most members that share one household''s account at a time; NULL: no limit';
COMMENT ON COLUMN loyalty.program.proof_above IS 'More points than that a day are redeemed, held, transferred or spent on rewards from an account only with a one-time code (loyalty.issue_proof), in smallest units; NULL: never asked for';
COMMENT ON COLUMN loyalty.program.cashier_points_max IS 'Most points that one cashier redeems and transfers in a day, in smallest units; NULL: no limit. Cashiers of loyalty.cashier_limit have their own';
COMMENT ON COLUMN loyalty.program.cashier_redemptions_max IS 'Most redemptions, holds and transfers of one cashier in a day; NULL: no limit';
COMMENT ON COLUMN loyalty.program.wallet_of IS 'The programme whose members have this kind of points besides; NULL: a programme of its own';
COMMENT ON COLUMN loyalty.program.wallet IS 'What the wallet is called there';
COMMENT ON COLUMN loyalty.program.country_code IS 'Dialling code of phone numbers that are given without one, 44 for instance; NULL: such numbers are refused';
COMMENT ON COLUMN loyalty.program.on_rule_error IS 'A rule that raises: fail refuses the sale, hold lets it stand and parks the award in held_award';

CREATE TABLE loyalty.tier (
    tier_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    program_id  integer NOT NULL,
    name        text NOT NULL CHECK (name <> '' AND octet_length(name) <= 200),
    metric      text NOT NULL CHECK (metric IN ('points', 'spend', 'visits')),
    threshold   numeric NOT NULL CHECK (threshold >= 0 AND threshold < 1e14),
    multiplier  numeric NOT NULL DEFAULT 1 CHECK (multiplier >= 0 AND multiplier <= 1000),
    rank        integer NOT NULL CHECK (rank >= 1),
    negative_limit bigint CHECK (negative_limit >= 0),
    reinstate_days integer CHECK (reinstate_days BETWEEN 0 AND 3650),
    UNIQUE (program_id, name),
    UNIQUE (program_id, rank)
);
COMMENT ON TABLE loyalty.tier IS 'A level of a programme; a member holds the highest rank whose threshold the qualifying window reaches';
COMMENT ON COLUMN loyalty.tier.threshold IS 'In points (display unit), money or visits, as metric says';
COMMENT ON COLUMN loyalty.tier.negative_limit IS 'Most debt of a member in this tier, in smallest units; NULL: the programme''s';
COMMENT ON COLUMN loyalty.tier.reinstate_days IS 'Days within which points of a member in this tier may be reinstated; NULL: the programme''s';
COMMENT ON COLUMN loyalty.tier.multiplier IS 'Base points of a member in this tier are multiplied by it, like a multiply rule';

CREATE TABLE loyalty.product (
    program_id  integer NOT NULL,
    sku         text NOT NULL CHECK (sku <> '' AND octet_length(sku) <= 500),
    name        text,
    category    text,
    brand       text,
    own_brand   boolean NOT NULL DEFAULT false,
    margin      numeric,
    partner     text,
    excluded    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (program_id, sku)
);
COMMENT ON TABLE loyalty.product IS 'What rules may know of an article; articles that are not here earn as plain ones';
COMMENT ON COLUMN loyalty.product.margin IS 'Margin as a share of the price, 0.35 = 35 %';
COMMENT ON COLUMN loyalty.product.excluded IS 'Lines of this article earn nothing (gift cards, tobacco, deposits)';

CREATE TABLE loyalty.rule (
    rule_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    program_id  integer NOT NULL,
    name        text NOT NULL CHECK (name <> '' AND octet_length(name) <= 200),
    UNIQUE (program_id, name)
);
COMMENT ON TABLE loyalty.rule IS 'A rule by name; what it says stands in its versions';

CREATE TABLE loyalty.rule_version (
    rule_version_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule_id         integer NOT NULL,
    version         integer NOT NULL,
    event           text NOT NULL CHECK (event IN ('purchase', 'line', 'activity')),
    kind            text NOT NULL CHECK (kind IN ('base', 'multiply', 'bonus')),
    points          text NOT NULL,
    condition       text,
    priority        integer NOT NULL DEFAULT 100,
    exclusive_group text,
    active_from     timestamptz NOT NULL DEFAULT '-infinity',
    active_until    timestamptz NOT NULL DEFAULT 'infinity',
    description     text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by      name NOT NULL DEFAULT session_user,
    retired_from    timestamptz,
    retired_at      timestamptz,
    reason          text,
    caps            jsonb,
    UNIQUE (rule_id, version),
    CHECK (active_from < active_until),
    CHECK ((retired_from IS NULL) = (retired_at IS NULL))
);
COMMENT ON TABLE loyalty.rule_version IS 'An immutable version of a rule; only its retirement is added later';
COMMENT ON COLUMN loyalty.rule_version.points IS 'SQL expression: points (base, bonus) or factor (multiply), numeric, in whole points';
COMMENT ON COLUMN loyalty.rule_version.condition IS 'SQL expression, boolean; the rule fires where it is true; NULL: always';
COMMENT ON COLUMN loyalty.rule_version.exclusive_group IS 'Of the rules of one group that fire, only the best one counts';
COMMENT ON COLUMN loyalty.rule_version.active_from IS 'Applies to events that occurred in [active_from, active_until)';
COMMENT ON COLUMN loyalty.rule_version.caps IS 'Most whole points that a member is given by the rule per day, week, month, year or ever: {"day": 50, "month": 500}; NULL: no cap';
COMMENT ON COLUMN loyalty.rule_version.retired_from IS 'Applies no more to events from this instant on, as recorded at retired_at';

CREATE TABLE loyalty.exchange_rate (
    from_currency   text NOT NULL CHECK (from_currency ~ '^[A-Z]{3}$'),
    to_currency     text NOT NULL CHECK (to_currency ~ '^[A-Z]{3}$'),
    day             date NOT NULL,
    rate            numeric NOT NULL CHECK (rate > 0 AND rate < 1e9),
    PRIMARY KEY (from_currency, to_currency, day)
);
COMMENT ON TABLE loyalty.exchange_rate IS 'One unit of from_currency costs rate units of to_currency on that day; a purchase uses the rate of its own day';

/*
 * The vocabulary of rules: every named row that an expression may use, with
 * a comment for every column.  They are types only; nothing is stored in them.
 * The order of columns is known to src/event.h.
 */
CREATE TYPE loyalty.member_facts AS (
    external_id     text,
    joined_on       date,
    birthday        date,
    is_birthday     boolean,
    staff           boolean,
    tier            text,
    tier_rank       integer,
    purchases       bigint,
    spend           numeric,
    average_order   numeric,
    attributes      jsonb
);
COMMENT ON TYPE loyalty.member_facts IS 'The row member in a rule';
COMMENT ON COLUMN loyalty.member_facts.is_birthday IS 'The event falls on the birthday (29 February is celebrated on 28 February)';
COMMENT ON COLUMN loyalty.member_facts.tier IS 'Name of the tier when the event occurred, NULL below the lowest';
COMMENT ON COLUMN loyalty.member_facts.tier_rank IS 'Rank of that tier, 0 below the lowest';
COMMENT ON COLUMN loyalty.member_facts.purchases IS 'Purchases before this event';
COMMENT ON COLUMN loyalty.member_facts.spend IS 'Lifetime spend before this event, in the programme''s currency';
COMMENT ON COLUMN loyalty.member_facts.average_order IS 'spend / purchases, NULL before the first purchase';

CREATE TYPE loyalty.purchase_facts AS (
    occurred_at     timestamp,
    day             date,
    "time"          time,
    weekday         integer,
    store           text,
    channel         text,
    currency        text,
    amount          numeric,
    total           numeric,
    shipping        numeric,
    discount        numeric,
    number          bigint,
    quantity        numeric,
    line_count      integer,
    attributes      jsonb,
    source          text
);
COMMENT ON TYPE loyalty.purchase_facts IS 'The row purchase in a rule';
COMMENT ON COLUMN loyalty.purchase_facts.occurred_at IS 'Local time in the programme''s zone';
COMMENT ON COLUMN loyalty.purchase_facts.weekday IS 'ISO day of the week, 1 = Monday';
COMMENT ON COLUMN loyalty.purchase_facts.amount IS 'What may earn: without tax, shipping, the shares paid with points and gift cards (each a switch of the programme) and excluded articles; in the programme''s currency';
COMMENT ON COLUMN loyalty.purchase_facts.total IS 'The whole amount, in the programme''s currency';
COMMENT ON COLUMN loyalty.purchase_facts.number IS 'The how-manieth purchase of the member this is, from 1';

CREATE TYPE loyalty.line_facts AS (
    sku             text,
    quantity        numeric,
    unit_price      numeric,
    amount          numeric,
    discount        numeric
);
COMMENT ON TYPE loyalty.line_facts IS 'The row line in a rule';
COMMENT ON COLUMN loyalty.line_facts.amount IS 'The line''s share of purchase.amount; the lines add up to it exactly';

CREATE TYPE loyalty.product_facts AS (
    sku             text,
    category        text,
    brand           text,
    own_brand       boolean,
    margin          numeric,
    partner         text
);
COMMENT ON TYPE loyalty.product_facts IS 'The row product in a rule: the line''s article; all NULL where it is not in loyalty.product';

CREATE TYPE loyalty.activity_facts AS (
    kind            text,
    value           numeric,
    subject         text,
    occurred_at     timestamp,
    day             date,
    "time"          time,
    weekday         integer,
    attributes      jsonb,
    source          text
);
COMMENT ON TYPE loyalty.activity_facts IS 'The row activity in a rule';

CREATE TYPE loyalty.redemption_facts AS (
    operation       text,
    points          bigint,
    money           numeric,
    order_amount    numeric,
    store           text,
    cashier         text,
    reference       text,
    occurred_at     timestamp,
    day             date,
    "time"          time,
    weekday         integer
);
COMMENT ON TYPE loyalty.redemption_facts IS 'The row redemption in a velocity limit: points that are to go';
COMMENT ON COLUMN loyalty.redemption_facts.operation IS 'redeem, hold, transfer or claim';
COMMENT ON COLUMN loyalty.redemption_facts.points IS 'Smallest units, before limits cut them';
COMMENT ON COLUMN loyalty.redemption_facts.money IS 'What they are worth in whole minor units; NULL where the programme does not say';
COMMENT ON COLUMN loyalty.redemption_facts.order_amount IS 'As redeem and hold were given it; likewise store';
COMMENT ON COLUMN loyalty.redemption_facts.reference IS 'As redeem and hold were given it; of a claim the name of the reward';
COMMENT ON COLUMN loyalty.redemption_facts.occurred_at IS 'Local time in the programme''s zone';
