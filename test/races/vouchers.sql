-- Vouchers that all clients redeem at once; each try is a transaction of its own and says what came of it.
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Vouchers');
CREATE SCHEMA storm;
CREATE TABLE storm.voucher AS SELECT g AS n, v.voucher_id, v.token FROM generate_series(1, :vouchers) g, loyalty.make_voucher(1, 'amount', 5, key => 'voucher ' || g) v;
ALTER TABLE storm.voucher ADD PRIMARY KEY (n);
CREATE TABLE storm.tried (n integer, client integer, answer text);
CREATE FUNCTION storm.try(n integer, client integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    BEGIN
        SELECT 'won ' || r.voucher_id INTO answer FROM storm.voucher v, loyalty.redeem_voucher(v.token, format('%s of client %s', v.n, client)) r WHERE v.n = try.n;
    EXCEPTION WHEN OTHERS THEN
        answer := SQLSTATE;
    END;
    INSERT INTO storm.tried VALUES (n, client, answer);
END
$$;
