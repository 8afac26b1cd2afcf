/*
 * member: who takes part.  account: what they own.  account_id = member_id, but
 * for the accounts of wallets.
 */
CREATE SEQUENCE loyalty.member_id_seq AS bigint;
COMMENT ON SEQUENCE loyalty.member_id_seq IS 'Numbers members and their accounts';

CREATE TABLE loyalty.member (
    member_id   bigint PRIMARY KEY DEFAULT nextval('loyalty.member_id_seq')
        CHECK ((member_id > 0 AND member_id < 100000000000) OR member_id BETWEEN 4000000000000001 AND 4999999999999999),
    program_id  integer NOT NULL,
    external_id text NOT NULL CHECK (external_id <> '' AND octet_length(external_id) <= 500),
    joined_at   timestamptz NOT NULL DEFAULT now() CHECK (isfinite(joined_at)),
    status      text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'frozen', 'closed')),
    birthday    date CHECK (birthday BETWEEN '1850-01-01' AND '2200-01-01'),
    birthday_since timestamptz,
    time_zone   text,
    staff       boolean NOT NULL DEFAULT false,
    attributes  jsonb,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (program_id, external_id)
);
ALTER SEQUENCE loyalty.member_id_seq OWNED BY loyalty.member.member_id;
COMMENT ON COLUMN loyalty.member.member_id IS 'Below 10^11; a household''s is above 4 * 10^15. Accounts of wallets are numbered above 5 * 10^15';
COMMENT ON TABLE loyalty.member IS 'A person in a programme; personal data does not belong here';
COMMENT ON COLUMN loyalty.member.external_id IS 'The shop''s own key of the member, unique in the programme';
COMMENT ON COLUMN loyalty.member.status IS 'active earns and spends; frozen earns and does not spend; closed does neither';
COMMENT ON COLUMN loyalty.member.created_at IS 'Set by the default alone: a row that brings another time is a restored one, whose account is restored too';
COMMENT ON COLUMN loyalty.member.birthday_since IS 'Since when this birthday stands here; kept by a trigger, so that nobody enters today for the points. The owner of the extension may set it for members that are taken over from elsewhere';
COMMENT ON COLUMN loyalty.member.time_zone IS 'In which the member''s birthday and anniversary begin; NULL: the programme''s';
COMMENT ON COLUMN loyalty.member.attributes IS 'What rules may know of the member, as member.attributes ->> ''key''';

CREATE TYPE loyalty.hold AS (
    hold_id     bigint,
    key         text,
    held_at     timestamptz,
    held_until  timestamptz,
    lots        loyalty.lots,
    detail      jsonb
);
COMMENT ON TYPE loyalty.hold IS 'Points set aside for a redemption that is still to be captured or released';
COMMENT ON COLUMN loyalty.hold.hold_id IS 'source_id of the entries that resolve it, from transaction_id_seq';
COMMENT ON COLUMN loyalty.hold.held_until IS 'From this instant on the hold counts as released, whether or not anything was written';
COMMENT ON COLUMN loyalty.hold.lots IS 'The very lots set aside, positive: frozen, they neither die nor are spent by others';
COMMENT ON COLUMN loyalty.hold.detail IS 'What was asked for and its worth in money';

CREATE TABLE loyalty.account (
    account_id      bigint PRIMARY KEY,
    program_id      integer NOT NULL,
    closed          boolean NOT NULL DEFAULT false,
    frozen          boolean NOT NULL DEFAULT false,
    joined_at       timestamptz NOT NULL,
    tier_id         integer,
    tier_since      timestamptz,
    tier_until      date,
    tier_pinned     date,
    last_event_at   timestamptz,
    seq             bigint NOT NULL DEFAULT 0,
    lots            loyalty.lots NOT NULL DEFAULT '{}',
    tally           loyalty.tally NOT NULL DEFAULT '{}',
    head            bytea NOT NULL DEFAULT '',
    holds           loyalty.hold[],
    merged_into     bigint,
    household_id    bigint,
    household_blocked boolean NOT NULL DEFAULT false,
    left_households bigint[]
) WITH (fillfactor = 90);
CREATE INDEX account_merged_into_idx ON loyalty.account (merged_into) WHERE merged_into IS NOT NULL;
COMMENT ON TABLE loyalty.account IS 'The state of an account: the sum of its entries, its tier and the head of its chain. Written by the ledger alone';
COMMENT ON COLUMN loyalty.account.closed IS 'Its member is closed; kept equal to member.status by a trigger, so that an award reads one row';
COMMENT ON COLUMN loyalty.account.frozen IS 'Its member is frozen, likewise';
COMMENT ON COLUMN loyalty.account.joined_at IS 'member.joined_at, likewise';
COMMENT ON COLUMN loyalty.account.tier_since IS 'When the present tier was reached (the event''s time)';
COMMENT ON COLUMN loyalty.account.tier_until IS 'Last day on which the present tier is good without requalifying';
COMMENT ON COLUMN loyalty.account.tier_pinned IS 'A tier set by hand stays at least to this day';
COMMENT ON COLUMN loyalty.account.merged_into IS 'The account that took over everything of this one; what is corrected or returned later is posted there';
COMMENT ON COLUMN loyalty.account.household_id IS 'The household whose account its member earns into and spends from meanwhile; its own is empty. NULL: none';
COMMENT ON COLUMN loyalty.account.household_blocked IS 'Its member earns into the household''s account and does not spend from it';
COMMENT ON COLUMN loyalty.account.left_households IS 'Households that its member left: keys that it used there are used for ever. NULL: none';
COMMENT ON COLUMN loyalty.account.holds IS 'Open holds; their lots are part of lots until they are captured. NULL: none';
COMMENT ON COLUMN loyalty.account.last_event_at IS 'Greatest time of an event so far';
COMMENT ON COLUMN loyalty.account.seq IS 'Number of the last entry';
COMMENT ON COLUMN loyalty.account.head IS 'Hash of the last entry; empty before the first';

CREATE SEQUENCE loyalty.household_id_seq AS bigint MINVALUE 4000000000000001 MAXVALUE 4999999999999999;
COMMENT ON SEQUENCE loyalty.household_id_seq IS 'Numbers households, above all members: accounts are locked in ascending order, a member''s before its household''s';

CREATE TABLE loyalty.household_member (
    household_id bigint NOT NULL,
    member_id   bigint NOT NULL,
    joined_at   timestamptz NOT NULL,
    joined_seq  bigint NOT NULL,
    reason      text,
    left_at     timestamptz,
    leave_reason text,
    PRIMARY KEY (member_id, joined_seq)
);
CREATE INDEX household_member_household_id_idx ON loyalty.household_member (household_id);
COMMENT ON TABLE loyalty.household_member IS 'Who shares or shared the account of which household. A household is a member of its own, with an account that others share. Written by the ledger alone';
COMMENT ON COLUMN loyalty.household_member.joined_seq IS 'The entry of the member''s own account by which everything went to the household: what those entries gave and is corrected later is corrected there';

CREATE SEQUENCE loyalty.tier_change_number_seq AS bigint;
COMMENT ON SEQUENCE loyalty.tier_change_number_seq IS 'Orders the tier changes of an account';

CREATE TABLE loyalty.tier_change (
    account_id  bigint NOT NULL,
    number      bigint NOT NULL DEFAULT nextval('loyalty.tier_change_number_seq'),
    tier_id     integer,
    changed_at  timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    until       date,
    cause       text NOT NULL CHECK (cause IN ('earned', 'review', 'revoked', 'manual', 'imported', 'merged', 'joined')),
    source_id   bigint,
    reason      text,
    PRIMARY KEY (account_id, number)
);
ALTER SEQUENCE loyalty.tier_change_number_seq OWNED BY loyalty.tier_change.number;
COMMENT ON TABLE loyalty.tier_change IS 'Every change of a tier; the view tier_history shows it as [from, to)';
