/*
 * The transaction tables: what happened in the shop.  The triggers that turn
 * them into points stand in award.
 */
CREATE SEQUENCE loyalty.transaction_id_seq AS bigint;
COMMENT ON SEQUENCE loyalty.transaction_id_seq IS 'Numbers purchases, returns and activities together, so that an entry''s source_id names one of them';

CREATE TYPE loyalty.line AS (
    sku         text,
    quantity    numeric,
    unit_price  numeric,
    amount      numeric,
    discount    numeric
);
COMMENT ON TYPE loyalty.line IS 'A line of a basket';
COMMENT ON COLUMN loyalty.line.amount IS 'What the line costs after its discount; NULL: quantity x unit_price - discount';

CREATE TABLE loyalty.purchase (
    purchase_id     bigint PRIMARY KEY DEFAULT nextval('loyalty.transaction_id_seq'),
    member_id       bigint,
    occurred_at     timestamptz NOT NULL DEFAULT now(),
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    store           text,
    channel         text,
    currency        text,
    amount          numeric NOT NULL,
    tax             numeric,
    shipping        numeric,
    discount        numeric,
    paid_with_points    numeric,
    paid_with_gift_card numeric,
    redemption_id   bigint,
    lines           loyalty.line[],
    attributes      jsonb,
    status          text NOT NULL DEFAULT 'completed',
    source          text NOT NULL DEFAULT 'purchase' CHECK (octet_length(source) <= 500),
    reference       text CHECK (octet_length(reference) <= 1000),
    CONSTRAINT purchase_reference_key UNIQUE (source, reference)
);
ALTER SEQUENCE loyalty.transaction_id_seq OWNED BY loyalty.purchase.purchase_id;
COMMENT ON TABLE loyalty.purchase IS 'One row is one basket; an INSERT awards its points in the same transaction, an UPDATE posts the difference';
COMMENT ON COLUMN loyalty.purchase.member_id IS 'NULL: a guest; kept for what is bought with what, earns nothing';
COMMENT ON COLUMN loyalty.purchase.recorded_at IS 'Set by the default alone: a row that brings another time is a restored or replicated one, whose entries are restored too, and awards nothing';
COMMENT ON COLUMN loyalty.purchase.currency IS 'NULL: the programme''s';
COMMENT ON COLUMN loyalty.purchase.amount IS 'What the basket costs in all: the lines, less the order''s discount, plus shipping; tax included';
COMMENT ON COLUMN loyalty.purchase.tax IS 'Tax contained in amount';
COMMENT ON COLUMN loyalty.purchase.shipping IS 'Shipping contained in amount';
COMMENT ON COLUMN loyalty.purchase.discount IS 'Discount on the whole order, already taken off amount';
COMMENT ON COLUMN loyalty.purchase.paid_with_points IS 'Share of amount that was paid with points';
COMMENT ON COLUMN loyalty.purchase.paid_with_gift_card IS 'Share of amount that was paid with gift cards';
COMMENT ON COLUMN loyalty.purchase.redemption_id IS 'The redemption (or hold) that paid paid_with_points: a return gives its points back';
COMMENT ON COLUMN loyalty.purchase.status IS 'completed, or void: cancelled, and what it earned is taken back';
COMMENT ON COLUMN loyalty.purchase.reference IS 'The till''s own number; (source, reference) is unique for ever';

CREATE TABLE loyalty.activity (
    activity_id     bigint PRIMARY KEY DEFAULT nextval('loyalty.transaction_id_seq'),
    member_id       bigint NOT NULL,
    occurred_at     timestamptz NOT NULL DEFAULT now(),
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    kind            text NOT NULL,
    value           numeric,
    subject         text,
    attributes      jsonb,
    status          text NOT NULL DEFAULT 'completed',
    source          text NOT NULL DEFAULT 'activity' CHECK (octet_length(source) <= 500),
    reference       text CHECK (octet_length(reference) <= 1000),
    CONSTRAINT activity_reference_key UNIQUE (source, reference)
);
COMMENT ON TABLE loyalty.activity IS 'Something a member did other than buying: signed up, reviewed, visited; an INSERT awards its points';
COMMENT ON COLUMN loyalty.activity.subject IS 'What it was about: a product, a page, a friend';
