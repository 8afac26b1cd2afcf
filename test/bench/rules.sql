SET client_min_messages = warning;
SELECT loyalty.create_program('Ten') AS ten, loyalty.create_program('Thousand') AS thousand \gset
SELECT count(loyalty.add_rule(p, 'r' || i, 'purchase', 'bonus', '1', 'purchase.amount >= ' || i)) FROM unnest(ARRAY[:ten, :thousand]) p, generate_series(1, 10) i \gset r_
SELECT count(loyalty.add_rule(:thousand, 's' || i, 'purchase', 'bonus', '1', format('purchase.store = %L and purchase.amount >= 1', 'store ' || i))) FROM generate_series(1, 990) i \gset r_
SELECT loyalty.enroll(:ten, 'bench rules'), loyalty.enroll(:thousand, 'bench rules') \gset r_
