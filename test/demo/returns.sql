-- one order in fifty is cancelled, one in thirty loses its last line
UPDATE loyalty.purchase SET status = 'void' WHERE abs(hashtext(reference)) % 50 = 7;
UPDATE loyalty.purchase SET lines = lines[1:cardinality(lines) - 1],
       amount = (SELECT sum(l.quantity * l.unit_price) FROM unnest(lines[1:cardinality(lines) - 1]) l)
    WHERE abs(hashtext(reference)) % 30 = 3 AND cardinality(lines) > 1 AND status = 'completed';
-- one in twenty-five gives its first line back, one in a hundred everything; members spend some of what they have
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines, source, reference)
    SELECT source, reference, ARRAY[ROW(1, NULL, NULL, NULL)::loyalty.return_line], 'shop', 'return of ' || reference FROM loyalty.purchase
    WHERE abs(hashtext(reference)) % 25 = 5 AND cardinality(lines) > 1 AND status = 'completed';
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, source, reference)
    SELECT source, reference, 'shop', 'return of ' || reference FROM loyalty.purchase WHERE abs(hashtext(reference)) % 100 = 11 AND status = 'completed';
SELECT count(*) AS redemptions FROM loyalty.member_balance b, LATERAL loyalty.redeem(b.member_id, b.available / 2, 'half') r
    WHERE b.available >= 2 AND b.debt = 0 AND b.member_id % 7 = 0 \gset demo_
