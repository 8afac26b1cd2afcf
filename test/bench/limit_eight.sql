-- eight limits that every purchase is asked about: four on the member, two on the store and channel with it, of all three measures
SET client_min_messages = warning;
SELECT loyalty.add_limit(1, 'an hour', 1000, '1 hour'), loyalty.add_limit(1, 'a day', 10000, '1 day'), loyalty.add_limit(1, 'a week', 100000, '7 days'),
       loyalty.add_limit(1, 'money a day', 1000000, '1 day', measure => 'amount'), loyalty.add_limit(1, 'money a month', 10000000, '30 days', measure => 'amount'),
       loyalty.add_limit(1, 'points a day', 1000000, '1 day', measure => 'points'), loyalty.add_limit(1, 'points a month', 10000000, '30 days', measure => 'points'),
       loyalty.add_limit(1, 'here a day', 10000, '1 day', subject => 'member.external_id || '' in '' || purchase.store') \gset b_
