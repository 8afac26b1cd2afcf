-- the main job: one statement, and everything is awarded
INSERT INTO loyalty.purchase (member_id, occurred_at, channel, amount, lines, source, reference)
    SELECT member_id, occurred_at, channel, amount, lines, 'shop', reference FROM basket ORDER BY reference;
