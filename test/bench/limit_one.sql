-- one limit that every purchase is asked about
SET client_min_messages = warning;
SELECT loyalty.add_limit(1, 'a day', 10000, '1 day', verdict => 'reject') \gset b_
