-- one order in fifty is cancelled, one in thirty loses its last line
UPDATE loyalty.purchase SET status = 'void' WHERE abs(hashtext(reference)) % 50 = 7;
UPDATE loyalty.purchase SET lines = lines[1:cardinality(lines) - 1],
       amount = (SELECT sum(l.quantity * l.unit_price) FROM unnest(lines[1:cardinality(lines) - 1]) l)
    WHERE abs(hashtext(reference)) % 30 = 3 AND cardinality(lines) > 1 AND status = 'completed';
