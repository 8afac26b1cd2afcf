INSERT INTO plain.purchase (member_id, occurred_at, amount, store, reference) SELECT member_id, occurred_at, amount, store, reference FROM incoming;
