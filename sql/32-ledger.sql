/*
 * The ledger: append-only entries.  account.lots and account.tally are the
 * sums of its entries' lots and tally, for ever.
 */
CREATE TABLE loyalty.entry (
    account_id  bigint NOT NULL,
    seq         bigint NOT NULL,
    kind        text NOT NULL,
    points      bigint NOT NULL,
    source_id   bigint,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    lots        loyalty.lots NOT NULL,
    tally       loyalty.tally NOT NULL,
    breakdown   bytea,
    actor       text NOT NULL,
    reason      text,
    key         text,
    detail      jsonb,
    hash        bytea NOT NULL,
    PRIMARY KEY (account_id, seq)
);
CREATE INDEX entry_source_id_idx ON loyalty.entry (source_id);
CREATE UNIQUE INDEX entry_key_idx ON loyalty.entry (account_id, key) WHERE key IS NOT NULL;
COMMENT ON TABLE loyalty.entry IS 'The ledger: one row a change, never updated, never deleted';
COMMENT ON COLUMN loyalty.entry.kind IS 'earn, challenge and referral (given, or taken back), correct (a purchase was changed or voided), return, release (pending points freed or a hold given back), redeem, capture (a hold was spent), undo, expire, adjust, write_off, transfer, merge, join and leave (a household), reinstate, open (opening balance), import';
COMMENT ON COLUMN loyalty.entry.points IS 'Sum of lots, in the programme''s smallest unit of a point';
COMMENT ON COLUMN loyalty.entry.source_id IS 'The purchase, return or activity that caused it';
COMMENT ON COLUMN loyalty.entry.lots IS 'The signed change of the account''s lots';
COMMENT ON COLUMN loyalty.entry.tally IS 'The signed change of the account''s tally';
COMMENT ON COLUMN loyalty.entry.breakdown IS 'Which rule versions gave what, and each line''s share; read it through entry_rule and entry_line';
COMMENT ON COLUMN loyalty.entry.actor IS 'The role that had connected (session_user); a role taken on with SET ROLE does not change it';
COMMENT ON COLUMN loyalty.entry.key IS 'Idempotency key of an adjustment or import, unique in the account for ever';
COMMENT ON COLUMN loyalty.entry.detail IS 'What was asked for and what came of it: money, references, the other side of a transfer';
COMMENT ON COLUMN loyalty.entry.hash IS 'BLAKE2b-256 over the previous entry''s hash and this entry''s canonical bytes; where a key chained it 33 bytes, the first of which is the key''s number';

CREATE TABLE loyalty.held_award (
    source_id   bigint PRIMARY KEY,
    account_id  bigint NOT NULL,
    held_at     timestamptz NOT NULL DEFAULT now(),
    reason      text NOT NULL,
    detail      text,
    failed      boolean NOT NULL DEFAULT false,
    released_at timestamptz,
    released_by name,
    release_reason text,
    refused_at  timestamptz,
    refused_by  name,
    refuse_reason text,
    CONSTRAINT held_award_refused_check CHECK ((refused_at IS NULL) = (refused_by IS NULL) AND (refused_at IS NULL) = (refuse_reason IS NULL))
);
CREATE INDEX held_award_open_idx ON loyalty.held_award (held_at) WHERE released_at IS NULL AND refused_at IS NULL;
COMMENT ON TABLE loyalty.held_award IS 'Purchases and activities whose award waits because a rule raised, a limit was reached or a person is to look at it; approve (or release_award) posts it, refuse never does';
COMMENT ON COLUMN loyalty.held_award.failed IS 'A rule raised: the award is decided with the rules of its release. Otherwise with those that were known when it was held';
COMMENT ON COLUMN loyalty.held_award.refused_at IS 'It gives no points for ever; where it was released before, they were taken back';
